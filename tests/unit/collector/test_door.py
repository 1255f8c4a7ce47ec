"""Who may send, where a server in a process of its own cannot be brought to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from viewmeter.collector.answers import ProblemError
from viewmeter.collector.request import Door, apart_from_time
from viewmeter.collector.settings import CollectorSettings
from viewmeter.metadata.keys import Key, KeysUnavailableError, Tenant


class Unreadable:
    """A directory whose store cannot be read."""

    version: object = None

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


class Keys:
    """A directory that a test changes."""

    def __init__(self) -> None:
        self._known: dict[str, Key] = {}
        self.version: object = object()

    def put(self, text: str, key: Key | None) -> None:
        self._known.pop(text, None)
        if key is not None:
            self._known[text] = key
        self.version = object()

    def find(self, text: str) -> Key | None:
        return self._known.get(text)


def a_key(name: str = "a", **changes: object) -> Key:
    return replace(Key(name, Tenant("acme", "Acme", b"secret"), frozenset({"ingest"})), **changes)


def open_door() -> tuple[Door, Keys]:
    keys = Keys()
    keys.put("pk_a", a_key())
    return Door(CollectorSettings(respect_gpc=True), keys, lambda: 0.0), keys


def test_a_sender_that_says_the_same_again_is_remembered_and_each_beacon_has_its_own_time() -> None:
    door, _ = open_door()
    first, sent_first = door.admit(Request(query_string="key=pk_a&t=1"), Headers(), frozenset())
    again, sent_again = door.admit(Request(query_string="key=pk_a&t=2"), Headers(), frozenset())
    assert again is first
    assert (sent_first, sent_again) == ("1", "2")
    door.forget()
    assert door.admit(Request(), Headers(), frozenset())[0] is not first


@pytest.mark.parametrize(
    "other",
    [
        Request(client="192.0.2.2:1"),
        Request(query_string="key=pk_a&channel_id=c"),
        Request(headers=Headers({"user-agent": "another"})),
        Request(headers=Headers({"sec-gpc": "1"})),
        Request(headers=Headers({"sec-ch-ua": '"Brave"'})),
        Request(headers=Headers({"authorization": "Bearer pk_a"})),
    ],
    ids=lambda request: f"{request.client} {request.query_string} {dict(request.headers)}",
)
def test_a_sender_that_says_something_else_is_somebody_else(other: Request) -> None:
    door, _ = open_door()
    first, _ = door.admit(Request(), Headers(), frozenset())
    assert door.admit(other, other.headers, frozenset())[0] is not first


def test_who_is_remembered_is_refused_once_the_key_is_revoked_or_may_less() -> None:
    door, keys = open_door()
    door.admit(Request(), Headers(), frozenset())
    keys.put("pk_a", a_key(scopes=frozenset({"read"})))
    with pytest.raises(ProblemError) as refused:
        door.admit(Request(), Headers(), frozenset())
    assert refused.value.answer.code == "missing_scope"
    keys.put("pk_a", None)
    with pytest.raises(ProblemError) as refused:
        door.admit(Request(), Headers(), frozenset())
    assert refused.value.answer.code == "invalid_key"


def test_a_refusal_is_not_remembered_as_an_admission() -> None:
    door, keys = open_door()
    keys.put("pk_a", a_key(origins=("https://good.example",)))
    bad = Headers({"origin": "https://bad.example"})
    for _ in range(2):
        with pytest.raises(ProblemError) as refused:
            door.admit(Request(headers=bad), bad, frozenset())
        assert refused.value.answer.code == "origin_not_allowed"
    good = Headers({"origin": "https://good.example"})
    admitted, _ = door.admit(Request(headers=good), good, frozenset())
    assert ("access-control-allow-origin", "https://good.example") in admitted.headers


def test_a_media_type_is_of_its_address_so_another_address_asks_again() -> None:
    door, _ = open_door()
    headers = Headers({"content-type": "application/json"})
    door.admit(Request(headers=headers), headers, frozenset({"application/json"}))
    with pytest.raises(ProblemError) as refused:
        door.admit(Request(path="/api/v1/events/cmcd", headers=headers), headers, frozenset({"application/cmcd"}))
    assert refused.value.answer.code == "unsupported_media_type"


@pytest.mark.parametrize(
    ("text", "rest", "sent_at"),
    [
        ("key=pk_a&t=17", "key=pk_a", "17"),
        ("t=5&key=pk_a&t=17", "t=5&key=pk_a", "17"),
        ("t=17&key=pk_a", "key=pk_a", "17"),
        ("key=pk_a&t=17&player=x", "key=pk_a&player=x", "17"),
        ("&t=17&key=pk_a", "key=pk_a", "17"),
        ("t=17", "", "17"),
        ("t=17&key=pk_a&%74=5", "t=17&key=pk_a&%74=5", "5"),
        ("t=1.5&key=pk_a", "t=1.5&key=pk_a", "1.5"),
        ("key=pk_a", "key=pk_a", None),
        ("key=pk_a&t=1.5", "key=pk_a&t=1.5", "1.5"),
        ("key=pk_a&t=%31", "key=pk_a&t=%31", "1"),
        ("key=pk_a&t=", "key=pk_a&t=", ""),
        ("", "", None),
    ],
)
def test_the_time_of_sending_is_kept_apart_wherever_it_is_plain(text: str, rest: str, sent_at: str | None) -> None:
    assert apart_from_time(text) == (rest, sent_at)


def test_who_says_very_much_of_itself_is_admitted_and_not_remembered() -> None:
    door, _ = open_door()
    long = Headers({"user-agent": "x" * 60_000})
    first, _ = door.admit(Request(headers=long), long, frozenset())
    assert door.admit(Request(headers=long), long, frozenset())[0] is not first
