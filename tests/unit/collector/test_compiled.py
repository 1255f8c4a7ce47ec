"""The compiled decoder says of each body what the Python one says, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from beacons_of_tests import T0
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.bench.ingest import bodies
from viewmeter.collector.agents import Agent
from viewmeter.collector.columns import Beacon, Columns, Terms
from viewmeter.collector.decoder import BOUNDS, CompiledRows, decoder
from viewmeter.collector.dialects import cmcd, native
from viewmeter.collector.intake import take, terms_of, unfollowed
from viewmeter.collector.places import Place
from viewmeter.collector.rows import PlainRows
from viewmeter.collector.senders import Sender
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import EVENT_TYPES, WireEvent

pytestmark = pytest.mark.skipif(CompiledRows is None, reason=decoder()[1])

SETTINGS = CollectorSettings()
SENDER = Sender(Place("DE", "BE", "Berlin", "AS1"), Agent("phone", "iOS", "Safari"), b"today")
KEYS: list[tuple[str, ...] | None] = [None, ("c1",), ("c1", "c2"), ()]
CLOCKS = [None, "", "nonsense", str(T0), str(T0 - 20_000), str(T0 + 3_600_000), "1e3"]
REQUIRED = {"type": '"play"', "ts": str(T0), "view_id": '"v"', "seq": "0", "video_id": '"x"', "channel_id": '"c1"'}
RECORDINGS = sorted((Path(__file__).parents[2] / "data" / "recordings").glob("*.jsonl"))
SHARED = Path(__file__).parents[4] / "shared" / "data" / "players"


NUMBERS = (
    "0", "-0", "-1", "00", "01", "1.", ".5", "1e3", "1E400", "1e-400", "2.5", "3.5", "0.5", "1.5", "0.0", "1.0",
    "9007199254740993", "18446744073709551616", "123456789012345678901234567890", "316224000000", "316224000000.0",
    "316224000001", "10000000", "10000001", "4102444800000", "4102444800001", "1000", "1000.0000000000001",
    "1.0000000000000002", "0.1234567890123456789", "0.000000000000000000000000000001", "8.5000000000000000000000",
    "NaN", "Infinity", "+1", "0x10", "1_000", "1,5",
)  # fmt: skip


def hashes() -> TenantHashes:
    return TenantHashes(Tenant("acme", "Acme", b"acme's secret"), 1000)


def add(
    columns: Columns,
    body: bytes,
    terms: Terms | None = None,
    sent_at: str | None = None,
    received_at: int = T0,
    most: int = 500,
) -> tuple[int, int, bool] | None:
    assert columns.take is not None
    return columns.take(body, terms or terms_of(hashes(), SENDER, None, SETTINGS), sent_at, received_at, most)


def by_compiled(
    body: bytes, channels: tuple[str, ...] | None = None, sent_at: str | None = None, received_at: int = T0
) -> tuple[pa.RecordBatch, int, bool] | None:
    columns = Columns()
    taken = add(columns, body, terms_of(hashes(), SENDER, channels, SETTINGS), sent_at, received_at)
    assert (columns.events == 0) == (taken is None)
    return None if taken is None else (columns.batch(), *taken[1:])


def by_python(
    body: bytes, channels: tuple[str, ...] | None = None, sent_at: str | None = None, received_at: int = T0
) -> tuple[pa.RecordBatch, int, bool]:
    """Raises what makes the body anything but wholly accepted."""
    decoded = native.decode(body)
    taken = take(decoded, channels, sent_at, received_at, SETTINGS)
    assert not taken.rejected, taken.rejected
    columns = Columns(compiled=False)
    columns.add(Beacon(hashes(), SENDER, received_at, taken.shift_ms, taken.events))
    return columns.batch(), decoded.ignored_fields, taken.shift_ms != 0


def same(body: bytes, *how: Any) -> bool:
    """Say whether the compiled decoder took the body; it must then be what the other one makes of it."""
    compiled = by_compiled(body, *how)
    if compiled is None:
        return False
    batch, *said = by_python(body, *how)
    assert compiled[0].schema.equals(batch.schema)
    assert compiled[0].to_pylist() == batch.to_pylist()
    assert list(compiled[1:]) == said
    compiled[0].validate(full=True)
    return True


# Values as they may stand in a body, each as text, so that every way to write a number or a text is possible.
_digits = st.text("0123456789", min_size=1, max_size=20)
_numbers = st.one_of(
    st.integers(0, 10**9).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
    st.floats(T0 - 1e6, T0 + 1e6).map(repr),
    st.builds("{}.{}".format, st.integers(0, 2**42), _digits),
    st.builds(
        "{}.{}".format, st.integers(0, 9999), st.sampled_from(["5", "50", "4999", "4" + "9" * 19, "5" + "0" * 17 + "1"])
    ),
    st.builds("{}.49{}".format, st.integers(0, 2**42), _digits),
    st.sampled_from(NUMBERS),
)
_plain = st.one_of(
    st.sampled_from(["", "a", "ü", "😀", "unknown", "c1", "c2", "a" * 255, "a" * 256, "ü" * 255, "\x7f"]),
    st.text(max_size=6),
)
_texts = st.one_of(
    _plain.map(lambda text: json.dumps(text, ensure_ascii=False)),
    _plain.map(json.dumps),
    st.sampled_from([r'"\ud800"', r'"\u0000"', '"\\/"', '"a\tb"', '"a\x00b"', '"\\', '"', "'a'", '"\ud83d"']),
)
_values = st.one_of(
    _numbers, _texts, st.sampled_from(["null", "true", "false", "nul", "True", "{}", "[]", "[1]", '{"a":1}', ""])
)
_names = st.sampled_from([*WireEvent.__struct_fields__, "z", "", "Type", "ts ", "ü", r"t\u0073"])
_blanks = st.sampled_from([*[""] * 9, " ", "\n", "\t \r\n", "\x0b", "\ufeff"])
_short = st.sampled_from(["", "a", "ü", "unknown", "c1", "c2", "a" * 255]).map(
    lambda t: json.dumps(t, ensure_ascii=False)
)
_small = st.one_of(st.integers(0, 10**7).map(str), st.floats(1e-3, 1e7).map(repr), st.just("null"))
_FITTING: dict[str, st.SearchStrategy[str]] = {
    "type": st.sampled_from(EVENT_TYPES).map(json.dumps),
    "ts": st.floats(T0 - 1e7, T0 + 2e5).map(repr),
    "view_id": st.sampled_from(['"v"', '"w"', '"ü"']),
    "seq": st.integers(0, 10**7).map(str),
    "video_id": st.sampled_from(['"x"', '"y"']),
    "channel_id": st.sampled_from(['"c1"', '"c2"', '""', "null"]),
    "playback_rate": st.one_of(st.floats(0.01, 16).map(repr), st.integers(0, 16).map(str)),
    "error_code": st.one_of(_short, st.integers(-999, 999).map(str)),
    **dict.fromkeys(("viewer_id", "player", "cdn", "stream_type", "error_message"), _short),
    **dict.fromkeys(("fatal", "halted", "blind"), st.sampled_from(["true", "false", "null"])),
    **dict.fromkeys(("z", "other"), st.one_of(_short, _small, st.just("true"))),
}


@st.composite
def _event(draw: st.DrawFn, hostile: bool) -> str:
    members = dict(REQUIRED)
    for name in draw(st.lists(st.sampled_from([*WireEvent.__struct_fields__, "z", "other"]), max_size=9)):
        members[name] = draw(_FITTING.get(name, _small))
    listed = list(members.items())
    if hostile:
        listed += draw(st.lists(st.tuples(_names, _values), max_size=2))
    if draw(st.booleans()):
        listed = draw(st.permutations(listed))
    blank = draw(_blanks)
    return "{" + ",".join(f'{blank}"{name}"{blank}:{blank}{value}' for name, value in listed) + blank + "}"


@st.composite
def _body(draw: st.DrawFn) -> bytes:
    hostile = draw(st.integers(0, 2)) == 0
    events = draw(st.lists(_event(hostile), min_size=1, max_size=4))
    if draw(st.booleans()):
        events += events[: draw(st.integers(1, 3))]
    after = draw(st.sampled_from(["", "", " \n", "]", ",", "x", "\x00", "[]"] if hostile else ["", "\n"]))
    body = (draw(_blanks) + "[" + ",".join(events) + "]" + after).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 1, 2])) if hostile else 0):  # bytes that change, go, or come
        place = draw(st.integers(0, len(body) - 1))
        change = draw(st.binary(max_size=2))
        body = body[:place] + change + body[place + draw(st.integers(0, 2)) :]
    return body


@settings(max_examples=400, deadline=None)
@given(body=_body(), key=st.sampled_from(KEYS), clock=st.sampled_from(CLOCKS))
def test_a_body_is_the_same_to_both_decoders_or_left_to_python(
    body: bytes, key: tuple[str, ...] | None, clock: str | None
) -> None:
    same(body, key, clock)


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(["ts", "position_ms", "playback_rate", "seq", "error_code", "z"]), number=_numbers)
def test_a_number_is_the_same_to_both_decoders_or_left_to_python(name: str, number: str) -> None:
    members = REQUIRED | {name: number}
    same(("[{" + ",".join(f'"{n}":{v}' for n, v in members.items()) + "}]").encode())


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=12))
def test_bytes_inside_of_a_text_are_the_same_to_both_decoders_or_left_to_python(noise: bytes) -> None:
    body = bodies(1, T0, 1)[0]
    same(body.replace(b"edge-a", noise).replace(b"edge-b", noise))


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), min_size=1, max_size=90))
def test_plain_text_of_any_script_is_taken(text: str) -> None:
    members = REQUIRED | dict.fromkeys(
        ("view_id", "video_id", "viewer_id", "player"), json.dumps(text, ensure_ascii=False)
    )
    assert same(("[{" + ",".join(f'"{n}":{v}' for n, v in members.items()) + "}]").encode())


@settings(deadline=None)
@given(number=st.floats(0, 1e11))
def test_any_number_that_a_browser_writes_is_taken(number: float) -> None:
    text = repr(number)
    if "e" not in text:  # JavaScript writes 1e-7 so too: below any fraction that matters
        members = REQUIRED | {"position_ms": text, "playback_rate": repr(number % 16)}
        assert same(("[{" + ",".join(f'"{n}":{v}' for n, v in members.items()) + "}]").encode()) == (
            "e" not in members["playback_rate"]
        )


@pytest.mark.parametrize("seed", range(3))
def test_what_players_send_is_taken(seed: int) -> None:
    for body in bodies(seed, T0, 20):
        assert same(body)
        assert same(json.dumps(json.loads(body), indent=2).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"extra": "1"},
        {"extra": '"text"', "more": "null", "third": "-1.5"},
        {"fatal": "true", "type": '"error"', "error_code": "404", "error_message": '"not found"'},
        {"error_code": "-3", "halted": "true"},
        {"blind": "true", "viewer_id": "null", "cdn": '""'},
        {"ts": f"{T0}.4999"},
        {"playback_rate": "1.0499999999999998"},
    ],
)
def test_what_is_unusual_and_plain_is_taken(change: dict[str, str]) -> None:
    events = ["{" + ",".join(f'"{n}":{v}' for n, v in (REQUIRED | more).items()) + "}" for more in (change, {}, change)]
    assert same(("[" + ",".join(events) + "]").encode())


@pytest.mark.parametrize("path", [*RECORDINGS, *sorted(SHARED.glob("*.jsonl"))], ids=lambda path: path.stem)
def test_recordings_of_players_are_the_same_to_both_decoders(path: Path) -> None:
    """As they are (which no decoder of this dialect takes), and as events of this dialect."""
    for line in path.read_text().splitlines()[1:]:
        post = json.loads(line)
        same(post["body"].encode())
        events = cmcd.decode(post["body"].encode(), channel_id="c1").events
        if events:
            seen = max(round(event.ts) for event in events)
            body = msgspec.json.encode([msgspec.to_builtins(event) for event in events])
            assert same(body, None, None, seen) or b"\\" in body or b"e-" in body


def test_a_sender_that_asked_not_to_be_followed_is_a_viewer_of_one_view() -> None:
    one = hashes()
    alone = Sender(Place("DE"), Agent(), b"", anonymous=True)
    columns, decoded = Columns(), Columns(compiled=False)
    for body in bodies(1, T0, 3):
        assert add(columns, body, terms_of(one, alone, None, SETTINGS))
        fields = unfollowed(take(native.decode(body), None, None, T0, SETTINGS).events)
        decoded.add(Beacon(one, alone, T0, 0, fields))
    assert columns.batch().to_pylist() == decoded.batch().to_pylist()


def test_a_channel_that_the_key_may_not_write_to_is_left_to_python() -> None:
    body = ("[{" + ",".join(f'"{n}":{v}' for n, v in REQUIRED.items()) + "}]").encode()
    assert by_compiled(body, ("c1",)) is not None
    assert by_compiled(body, ("c2",)) is None
    assert by_compiled(body, ()) is None
    unnamed = body.replace(b',"channel_id":"c1"', b"")
    assert by_compiled(unnamed) is None
    assert same(unnamed, ("c7",))


def test_bodies_and_decoded_events_share_a_group_in_the_order_of_arrival() -> None:
    sent = bodies(2, T0, 6)
    mixed, plain = Columns(), Columns(compiled=False)
    shared = hashes()
    for n, body in enumerate(sent):
        decoded = Beacon(shared, SENDER, T0, 0, take(native.decode(body), None, None, T0, SETTINGS).events)
        plain.add(decoded)
        if n % 2:
            mixed.add(decoded)
        else:
            assert add(mixed, body, terms_of(shared, SENDER, None, SETTINGS))
    assert mixed.batch().to_pylist() == plain.batch().to_pylist()


def test_more_events_than_there_is_room_for_are_left_to_python() -> None:
    columns = Columns()
    assert add(columns, bodies(1, T0, 1)[0], most=9) is None


def test_a_hash_that_cannot_be_computed_leaves_nothing_behind() -> None:
    class Broken(dict[str, int]):
        def __missing__(self, text: str) -> int:
            raise OSError("no salt")

    broken = hashes()
    broken.viewers = Broken()  # type: ignore[assignment]
    columns = Columns()
    with pytest.raises(OSError, match="no salt"):
        add(columns, bodies(1, T0, 1)[0], terms_of(broken, SENDER, None, SETTINGS))
    assert columns.events == 0
    assert add(columns, bodies(1, T0, 1)[0]) == (10, 0, False)


def test_a_hash_that_asks_for_the_same_store_again_is_refused() -> None:
    columns = Columns()
    body = bodies(1, T0, 1)[0]
    again: list[Any] = []

    class Curious(dict[str, int]):
        def __missing__(self, text: str) -> int:
            again.append(add(columns, body))
            return 7

    curious = hashes()
    curious.views = Curious()  # type: ignore[assignment]
    assert add(columns, body, terms_of(curious, SENDER, None, SETTINGS)) == (10, 0, False)
    assert again == [None]


def test_the_bounds_are_those_of_the_model() -> None:
    from viewmeter.collector import _compiled

    assert _compiled.BOUNDS == BOUNDS
    assert decoder()[0] == "compiled"


def test_a_setting_keeps_the_compiled_decoder_out() -> None:
    assert isinstance(Columns(compiled=False).rows, PlainRows)
    assert Columns(compiled=False).take is None


@pytest.mark.parametrize(
    ("given", "error"),
    [((b"[]", ()), "take"), ((b"[]", (), None, T0, 500), "tuple"), ((bytearray(b"[]"), (), None, T0, 500), "take")],
)
def test_what_is_no_body_or_no_terms_is_refused(given: tuple[Any, ...], error: str) -> None:
    columns = Columns()
    assert columns.take is not None
    with pytest.raises(TypeError, match=error):
        columns.take(*given)


@pytest.mark.parametrize(
    "sent_at", ["1_764_000_000_000", " 1764000060000 ", "inf", "-1", "4102444800001", "1764000010000.5", "\ud800"]
)
def test_a_time_of_sending_is_read_as_python_reads_numbers(sent_at: str) -> None:
    body = ("[{" + ",".join(f'"{n}":{v}' for n, v in REQUIRED.items()) + "}]").encode()
    assert same(body, None, sent_at, T0 + 20_000)
