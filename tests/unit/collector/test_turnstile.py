"""The compiled turnstile lets through whom the door would admit, counts as it does, and leaves it all others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_door import Headers, Keys, Request, a_key

from viewmeter.collector.answers import ProblemError
from viewmeter.collector.decoder import CompiledTurnstile, decoder
from viewmeter.collector.request import Admitted, Door
from viewmeter.collector.settings import CollectorSettings

pytestmark = pytest.mark.skipif(CompiledTurnstile is None, reason=decoder()[1])

TYPES = {
    "/api/v1/events/beacon": frozenset({"application/json", "text/plain"}),
    "/api/v1/events/cmcd": frozenset({"application/cmcd", "text/cmcd", "text/plain"}),
}
PLAIN = {"content-length": "100"}


def doors(keys: Keys, clock: list[float], **settings: object) -> tuple[Door, Door]:
    """One with the turnstile, one without."""
    chosen = CollectorSettings(**settings)  # type: ignore[arg-type]
    without = replace(chosen, compiled_decoder=False)
    return Door(chosen, keys, lambda: clock[0]), Door(without, keys, lambda: clock[0])


def known(keys: Keys, clock: list[float], request: Request, **settings: object) -> Door:
    """A door at which the sender of a request was admitted before."""
    keys.put("pk_a", a_key())
    door, _ = doors(keys, clock, **settings)
    door.admit(request, request.headers, TYPES[request.path])
    return door


def outcome(door: Door, request: Request) -> tuple[object, ...]:
    """What a request comes to: who sends and when, or the refusal; and what is left to the sender."""
    try:
        passed = door.passes(request) or door.admit(request, request.headers, TYPES[request.path])
    except ProblemError as refused:
        return refused.answer
    admitted, sent_at = passed
    found = {name: getattr(admitted, name) for name in Admitted.__slots__ if name != "version"}
    return found, sent_at, door.allowance(admitted)


def requests() -> st.SearchStrategy[Request]:
    """Requests of few senders, so that they come again."""
    texts = st.dictionaries(
        st.sampled_from(("user-agent", "origin", "authorization", "sec-gpc", "sec-ch-ua", "content-type", "prefer")),
        st.sampled_from(("text/plain", "1", "Bearer pk_b", "https://a.example")),
        max_size=2,
    )
    lengths = st.sampled_from(({}, PLAIN, PLAIN, PLAIN, {"content-length": "9999999"}, {"content-length": "1e3"}))
    return st.builds(
        Request,
        client=st.sampled_from(
            ("192.0.2.1:1", "192.0.2.9:1", "192.0.3.1:5", "[2001:db8::1]:5", "[::ffff:192.0.2.1]:9")
        ),
        method=st.sampled_from(("POST", "POST", "POST", "PUT")),
        path=st.sampled_from(sorted(TYPES)),
        query_string=st.sampled_from(
            (
                "key=pk_a",
                "key=pk_a&t=1",
                "key=pk_a&t=2",
                "key=pk_b&t=3",
                "t=4&key=pk_a",
                "key=pk_a&t=x",
                "t=5",
                "key=é&t=6",
            )
        ),
        headers=st.builds(lambda some, length: Headers({**some, **length}), texts, lengths),
    )


KEYS = (a_key(), a_key(scopes=frozenset({"read"})), a_key("b"), a_key("b", origins=("https://a.example",)), None)
steps = st.one_of(
    requests(),
    st.floats(0, 2),
    st.tuples(st.sampled_from(("pk_a", "pk_b")), st.sampled_from(KEYS)),
)


@given(st.lists(steps, max_size=40))
@example([Request(headers=Headers(PLAIN))] * 12)
def test_with_the_turnstile_every_request_comes_to_the_same(done: list[object]) -> None:
    keys, clock = Keys(), [0.0]
    keys.put("pk_a", a_key())
    with_it, without = doors(
        keys,
        clock,
        respect_gpc=True,
        requests_per_second_per_address=3,
        requests_per_second_per_key=5,
        rate_burst_seconds=2,
    )
    for step in done:
        match step:
            case Request():
                assert outcome(with_it, step) == outcome(without, step)
            case float():
                clock[0] += step
            case text, key:
                keys.put(text, key)


@pytest.mark.parametrize("client", ["192.0.2.1:1", "[2001:db8::1]:5"])
@pytest.mark.parametrize("query", ["key=pk_a&t=17", "key=pk_a", "t=17&key=pk_a"])
def test_who_was_admitted_passes(client: str, query: str) -> None:
    request = Request(client=client, query_string=query, headers=Headers({**PLAIN, "sec-ch-ua": "x"}))
    passed = known(Keys(), [0.0], request).passes(request)
    assert passed is not None
    assert passed[0].address == client.rpartition(":")[0].strip("[]")
    assert passed[1] == ("17" if "t=" in query else None)


@pytest.mark.parametrize(
    "changed",
    [
        {"content-length": "32769"},
        {"content-length": "x"},
        {"content-length": ""},
        {"content-encoding": "gzip"},
        {"prefer": "return=representation"},
        {"origin": "https://other.example"},
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_the_door_and_not_counted(changed: dict[str, str]) -> None:
    request = Request(headers=Headers(PLAIN))
    door = known(Keys(), [0.0], request)
    admitted, _ = door.passes(request) or pytest.fail("it was admitted")
    left = door.allowance(admitted)
    assert door.passes(replace(request, headers=Headers({**PLAIN, **changed}))) is None
    assert door.passes(replace(request, method="OPTIONS")) is None
    assert door.allowance(admitted) == left


class Unreadable(Headers):
    """Headers of which one is there, but is not ASCII."""

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        return None if key == "authorization" else super().get(key, default)


def test_an_authorization_that_cannot_be_read_is_none_that_is_missing() -> None:
    request = Request(headers=Headers(PLAIN))
    door = known(Keys(), [0.0], request)
    assert door.passes(request) is not None
    assert door.passes(replace(request, headers=Unreadable({**PLAIN, "authorization": "Bearer é"}))) is None


def test_nobody_passes_while_the_queue_is_full() -> None:
    keys, full = Keys(), [False]
    keys.put("pk_a", a_key())
    door = Door(CollectorSettings(), keys, lambda: 0.0, lambda: full[0])
    request = Request(headers=Headers(PLAIN))
    door.admit(request, request.headers, TYPES[request.path])
    assert door.passes(request) is not None
    full[0] = True
    assert door.passes(request) is None


def test_behind_a_trusted_proxy_the_address_is_the_one_it_says() -> None:
    request = Request(client="10.0.0.1:5", headers=Headers({**PLAIN, "x-forwarded-for": "192.0.2.7"}))
    door = known(Keys(), [0.0], request, trusted_proxies=["10.0.0.0/8"])
    admitted, _ = door.passes(request) or pytest.fail("it was admitted")
    assert admitted.address == "192.0.2.7"
    other = replace(request, headers=Headers({**PLAIN, "x-forwarded-for": "192.0.2.8"}))
    assert door.passes(other) is None


def test_who_was_forgotten_or_whose_key_may_have_changed_asks_the_door_first() -> None:
    keys, request = Keys(), Request(headers=Headers(PLAIN))
    door = known(keys, [0.0], request)
    keys.put("pk_b", a_key("b"))
    assert door.passes(request) is None
    door.admit(request, request.headers, TYPES[request.path])
    keys.put("pk_c", a_key("c"))
    assert door.passes(request) is None
    door.admit(request, request.headers, TYPES[request.path])
    assert door.passes(request) is not None
    door.forget()
    assert door.passes(request) is None


@pytest.mark.parametrize("wrong", [None, object(), Request(client=None), Request(query_string=b"key=pk_a&t=1")])  # type: ignore[arg-type]
def test_what_is_no_request_raises_and_does_not_crash(wrong: object) -> None:
    door = known(Keys(), [0.0], Request(headers=Headers(PLAIN)))
    if isinstance(wrong, Request):
        wrong = replace(wrong, headers=Headers(PLAIN))
    with pytest.raises((AttributeError, TypeError)):
        door.passes(wrong)  # type: ignore[arg-type]
