"""`GET /api/v1/admin/quality`: who sees which players, and a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from viewmeter.collector.quality.figures import FIELDS, figures_of
from viewmeter.collector.quality.store import FiguresReader, FiguresWriter
from viewmeter.model.events import UNKNOWN, WORD_COLUMNS
from viewmeter.testing.columns import to_table
from viewmeter.web import schemas
from viewmeter.web.services import Services

from .conftest import NOW, Served, World

PATH = "/api/v1/admin/quality"


@pytest.fixture
def players(world: World, start: Callable[[Services], Served]) -> Iterator[httpx.Client]:
    """Serve figures of two players of tenant a and one of tenant b."""
    words = dict.fromkeys(WORD_COLUMNS, UNKNOWN) | {"channel_id": "c", "video_id": "f", "country": "DE"}
    event = {**words, "view_id": "v", "viewer_hash": 1, "seq": 0, "type": "play", "ts": NOW, "received_at": NOW + 250}
    sent = (("a", "hls.js-1.7", 900), ("a", "hls.js-1.7", 500), ("a", "dash.js-5.2", None), ("b", "hls.js-1.7", 1))
    rows = [{**event, "tenant_id": tenant, "player": player, "bitrate_kbps": kbps} for tenant, player, kbps in sent]
    (batch,) = to_table(rows).to_batches()
    FiguresWriter(world.folder / "quality", 0).add(figures_of(batch), NOW)
    with start(replace(world.services, quality=FiguresReader(world.folder / "quality", 0.01))).client() as client:
        yield client


def asked(client: httpx.Client, key: dict[str, str], **parameters: Any) -> dict[str, Any]:
    answer = client.get(PATH, headers=key, params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    msgspec.convert(body, schemas.Quality, strict=True)
    assert body.keys() == set(schemas.Quality.__struct_fields__)
    for row in body["players"]:
        assert row.keys() == set(schemas.PlayerQuality.__struct_fields__)
    return body


def test_a_tenant_sees_its_own_players(players: httpx.Client, world: World) -> None:
    body = asked(players, world.key("a", "admin"))
    assert (body["as_of"], body["sample_ratio"], body["next_cursor"]) == ("2026-11-25T12:00:00Z", 0.01, None)
    dash, hls = body["players"]
    assert (dash["player"], dash["version"], dash["events"]) == ("dash.js", "5.2", 1)
    assert (hls["tenant"], hls["player"], hls["version"], hls["events"]) == ("a", "hls.js", "1.7", 2)
    assert hls["types"] == {"play": 2}
    assert hls["filled_ratio"].keys() == set(FIELDS)
    assert [hls["filled_ratio"][name] for name in ("bitrate_kbps", "country", "city")] == [1, 1, 0]
    assert dash["filled_ratio"]["bitrate_kbps"] == 0
    assert "bitrate_kbps" not in dash["values"]
    assert hls["values"]["bitrate_kbps"] == {"min": 500, "p05": 500, "median": 500, "p95": 900, "max": 900}
    assert hls["clock_skew_ms"]["median"] == 250


def test_an_operator_sees_all_a_page_at_a_time(players: httpx.Client, world: World) -> None:
    key = world.key("o", "operator")
    first = asked(players, key, limit=2)
    rest = asked(players, key, limit=2, cursor=first["next_cursor"])
    seen = [(row["tenant"], row["player"]) for row in first["players"] + rest["players"]]
    assert seen == [("a", "dash.js"), ("a", "hls.js"), ("b", "hls.js")]
    assert rest["next_cursor"] is None


def test_a_key_bound_to_channels_sees_none(players: httpx.Client, world: World) -> None:
    answer = players.get(PATH, headers=world.key("a", "admin", channels=["c"]))
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert players.get(PATH, headers=world.key("a", "read")).status_code == 403
    assert players.get(PATH).status_code == 401


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({"cursor": "zz"}, "invalid_cursor"), ({"days": 0}, "validation_failed"), ({"days": 9}, "validation_failed")],
)
def test_what_cannot_be_answered_is_said(
    players: httpx.Client, world: World, parameters: dict[str, Any], code: str
) -> None:
    answer = players.get(PATH, headers=world.key("a", "admin"), params=parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_without_a_monitor_there_are_no_players(api: httpx.Client, world: World) -> None:
    assert asked(api, world.key("a", "admin"))["players"] == []
