"""Who may send, where a server in a process of its own cannot be brought to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from viewmeter.collector.answers import ProblemError
from viewmeter.collector.request import Door
from viewmeter.collector.settings import CollectorSettings
from viewmeter.metadata.keys import Key, KeysUnavailableError


class Unreadable:
    """A directory whose store cannot be read."""

    def find(self, text: str) -> Key | None:
        raise KeysUnavailableError(text)


class Headers(dict[str, str]):
    def get_all(self, key: str) -> list[str]:
        return [self[key]] if key in self else []


@dataclass
class Request:
    client: str = "192.0.2.1:1"
    method: str = "POST"
    path: str = "/api/v1/events/beacon"
    query_string: str = "key=pk_a"
    headers: Headers = field(default_factory=Headers)


def test_keys_that_cannot_be_looked_up_are_503_since_players_throw_away_what_is_401() -> None:
    door = Door(CollectorSettings(retry_after_s=7), Unreadable(), lambda: 0.0)
    with pytest.raises(ProblemError) as refused:
        door.admit(Request(), Headers(), frozenset())
    answer = refused.value.answer
    assert (answer.status, answer.code) == (503, "metadata_unavailable")
    assert ("retry-after", "7") in answer.headers
    assert json.loads(answer.body)["code"] == "metadata_unavailable"


def test_a_preflight_is_answered_also_then() -> None:
    door = Door(CollectorSettings(), Unreadable(), lambda: 0.0)
    assert door.preflight(Request(method="OPTIONS")).status == 204
