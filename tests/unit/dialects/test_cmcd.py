"""From CMCD records to events."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from viewmeter.collector.dialects import EVENT_CODES, MAX_EVENTS, Decoded, UndecodableError
from viewmeter.collector.dialects.cmcd import decode
from viewmeter.collector.dialects.cmcd_keys import EVENTS, KEYS
from viewmeter.collector.dialects.cmcd_quirks import QUIRKS
from viewmeter.model.events import WireEvent

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
IN_ALL = 51
T0 = 1_795_569_168_892


def record(e: str = "ps", sn: int = 4, sta: str | None = "p", extra: str = "", v: str = ",v=2") -> str:
    state = f",sta={sta}" if sta else ""
    return f'cid="film",e={e},sid="s1",sn={sn}{state},ts={T0}{extra}{v}'


def decoded(*records: str, channel_id: str | None = "c1") -> Decoded:
    return decode("\n".join((*records, "")).encode(), channel_id=channel_id)


def event(text: str) -> WireEvent:
    result = decoded(text)
    assert result.rejected == []
    return result.events[0]


def rejection(text: str) -> tuple[str, str]:
    result = decoded(text)
    assert result.events == []
    assert result.rejected[0].raw == text.encode()
    assert result.rejected[0].code in EVENT_CODES
    return result.rejected[0].code, result.rejected[0].detail


def test_a_record_names_view_video_seq_and_instant() -> None:
    got = event(record(extra=",st=v"))
    assert (got.view_id, got.video_id, got.seq, got.ts) == ("s1", "film", 4, T0)
    assert (got.channel_id, got.stream_type, got.blind, got.player) == ("c1", "vod", None, None)


def test_the_player_can_be_named_by_the_caller() -> None:
    assert decode(record().encode(), channel_id=None, player="hls.js").events[0].player == "hls.js"


@pytest.mark.parametrize(
    ("sta", "kind"),
    [
        ("d", "request"),
        ("s", "request"),
        ("p", "play"),
        ("a", "pause"),
        ("k", "seek"),
        ("r", "buffer"),
        ("w", "buffer"),
        ("e", "complete"),
        ("f", "error"),
        ("q", "exit"),
        ("z", "other"),
    ],
)
def test_a_change_of_state_is_the_event_of_that_state(sta: str, kind: str) -> None:
    assert event(record("ps", sta=sta)).type == kind
    assert event(record("ps", sta=sta)).fatal is None


@pytest.mark.parametrize("sta", ["r", "k", "s", "d", "w", "f", "a", "e"])
def test_a_heartbeat_in_a_state_other_than_playing_is_no_proof_of_playing(sta: str) -> None:
    assert event(record("t", sta=sta)).type == "other"


def test_a_heartbeat_while_playing_is_a_heartbeat() -> None:
    assert event(record("t")).type == "heartbeat"


@pytest.mark.parametrize("sta", ["p", "r", "f", "a"])
def test_the_state_on_a_response_is_stale_and_moves_nothing(sta: str) -> None:
    assert event(record("rr", sta=sta)).type == "other"


def test_a_bitrate_change_is_a_quality_change() -> None:
    got = event(record("bc", extra=",br=(1025)"))
    assert (got.type, got.bitrate_kbps) == ("quality_change", 1025)


@pytest.mark.parametrize("kind", ["t", "rr", "bc", "b"])
def test_the_first_record_without_a_state_is_the_request_and_not_blind(kind: str) -> None:
    got = event(record(kind, sn=0, sta=None))
    assert (got.type, got.blind) == ("request", None)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("t", "heartbeat"), ("rr", "other"), ("bc", "quality_change"), ("e", "error")]
)
def test_a_later_record_without_a_state_is_blind(kind: str, wanted: str) -> None:
    got = event(record(kind, sta=None))
    assert (got.type, got.blind) == (wanted, True)


def test_the_start_of_a_blind_view_is_where_msd_is() -> None:
    got = event(record("rr", sta=None, extra=",msd=478"))
    assert (got.type, got.blind, got.startup_ms) == ("play", True, 478)


@pytest.mark.parametrize("msd", ["-1", '"478"', "999999999999999", "abc"])
def test_a_malformed_msd_is_no_start(msd: str) -> None:
    got = event(record("rr", sta=None, extra=f",msd={msd}"))
    assert (got.type, got.startup_ms) == ("other", None)


def test_msd_of_a_player_that_tells_its_state_is_not_believed() -> None:
    got = event(record("ps", extra=",msd=13"))
    assert (got.type, got.startup_ms) == ("play", None)


@pytest.mark.parametrize(
    ("br", "kbps"),
    [
        ("(1025)", 1025),
        ("(900;v 32;a)", 932),
        ("932", 932),
        ("(1.5)", 1.5),
        ("()", None),
        ('("x")', None),
        ("(-1)", None),
        ("?1", None),
        ("(999999999999999)", None),
    ],
)
def test_the_bitrate_is_that_of_all_that_plays_together(br: str, kbps: float | None) -> None:
    assert event(record(extra=f",br={br}")).bitrate_kbps == kbps


def test_what_is_shown_says_more_than_what_is_selected() -> None:
    assert event(record(extra=",ab=(1),br=(2),pb=(3)")).bitrate_kbps == 3
    assert event(record(extra=",ab=(1),br=(2)")).bitrate_kbps == 2
    assert event(record(extra=",ab=(1),br=(x)")).bitrate_kbps == 1


@pytest.mark.parametrize(
    ("extra", "count", "ms"),
    [
        (",bsa=(2),bsda=(1500)", 2, 1_500),
        (",bsa=(2;v 1;a),bsda=(1500;v 200;a)", 3, 1_700),
        (",bsa=2,bsda=1500", 2, 1_500),
        (",bsa=(0),bsda=(0)", 0, 0),
        (",bsa=(-1),bsda=(x)", None, None),
        (",bsa=(99999999),bsda=(999999999999999)", None, None),
        (",bsd=(926;v)", None, None),
    ],
)
def test_absolute_starvation_is_cumulative_rebuffering(extra: str, count: float | None, ms: float | None) -> None:
    got = event(record("t", extra=extra))
    assert (got.rebuffer_count, got.rebuffered_ms) == (count, ms)


@pytest.mark.parametrize(
    ("text", "quirks"),
    [
        (record(), None),
        (record("t"), None),
        (record(sn=0, sta=None), None),
        (f"e=t,ts={T0},v=2", {"default_keys": 1}),
        (record("t", sta=None), {"no_states": 1}),
        (record("rr", sta=None, extra=",msd=478"), {"no_states": 1, "startup_without_states": 1}),
        (record(extra=",msd=13"), {"msd_beside_states": 1}),
        (record(sta="f"), {"fatal_that_recovers": 1}),
        (record("e"), {"error_without_code": 1}),
        (record("e", extra=",ec=27"), {"bare_list": 1}),
        (record("t", sta="e"), {"heartbeat_not_playing": 1}),
        (record("rr", extra=",ttfb=1795569168892"), {"absolute_ttfb": 1}),
        (record("rr", extra=",ttfb=120"), None),
        (record("t", sta=None, v=",v=1"), None),
    ],
)
def test_a_known_quirk_is_counted_by_its_name(text: str, quirks: dict[str, int] | None) -> None:
    assert decoded(text).quirks == quirks


def test_every_counted_quirk_was_seen_in_a_recording() -> None:
    recordings = sorted((SHARED / "players").glob("*.jsonl"))
    if len(recordings) < IN_ALL:
        pytest.skip("the recordings are not all here: they are in ../shared/data/players")
    seen: set[str] = set()
    for path in recordings:
        for line in path.read_bytes().splitlines()[1:]:
            seen |= (decode(msgspec.json.decode(line)["body"].encode(), channel_id="c").quirks or {}).keys()
    assert seen == {name for name, quirk in QUIRKS.items() if quirk.counted}


def test_every_counted_quirk_is_shown_by_a_test_above() -> None:
    marks = test_a_known_quirk_is_counted_by_its_name.pytestmark  # type: ignore[attr-defined]
    shown = {name for _, quirks in marks[0].args[1] for name in quirks or ()}
    assert shown == {name for name, quirk in QUIRKS.items() if quirk.counted}


def test_the_page_lists_every_quirk_and_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "cmcd.md").read_text()
    assert [name for name in QUIRKS if f"| `{name}` |" not in page] == []
    assert [key for key in KEYS if f"`{key}`" not in page] == []
    assert [key for key in EVENTS if f"`{key}`" not in page and f"`e={key}`" not in page] == []


def test_a_value_of_another_type_is_counted_as_ignored() -> None:
    result = decoded(record(extra=',pt="soon",cdn=5,pr=fast,st=z,br=(900)'))
    assert result.ignored_fields == 4
    got = result.events[0]
    assert (got.position_ms, got.cdn, got.playback_rate, got.stream_type, got.bitrate_kbps) == (*[None] * 4, 900)


@pytest.mark.parametrize(
    ("ec", "code"), [("27", "27"), ('("E1")', "E1"), ('("E1" "E2" 3)', "E1,E2,3"), ("()", None), ("?1", None)]
)
def test_error_codes_may_be_a_list_or_dashjs_number(ec: str, code: str | None) -> None:
    got = event(record("e", extra=f",ec={ec}"))
    assert (got.type, got.fatal, got.error_code) == ("error", None, code)


@pytest.mark.parametrize(
    ("kind", "extra", "rate"), [("pr", ",pr=2", 2), ("t", ",pr=0.5", 0.5), ("t", "", 1.0), ("ps", "", None)]
)
def test_a_heartbeat_without_rate_says_1(kind: str, extra: str, rate: float | None) -> None:
    assert event(record(kind, extra=extra)).playback_rate == rate


def test_playhead_cdn_and_stream_type_are_taken_where_a_player_sends_them() -> None:
    got = event(record(extra=',pt=61000,cdn="alpha",st=ll'))
    assert (got.position_ms, got.cdn, got.stream_type, got.duration_ms) == (61_000, "alpha", "live", 0)


@pytest.mark.parametrize("kind", ["m", "um", "b", "pe", "h", "ce", "sk", "as", "unheard_of"])
def test_a_record_that_maps_to_nothing_keeps_its_seq(kind: str) -> None:
    assert event(record(kind)).type == "other"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n", "\r\n \r\n"])
@pytest.mark.parametrize("between", ["\n", "\r\n", "\n\n", "\n\t\n"])
def test_records_are_lines_whatever_ends_them(between: str, ending: str) -> None:
    body = between.join((record(sn=1), record(sn=2))) + ending
    assert [e.seq for e in decode(body.encode(), channel_id=None).events] == [1, 2]


@pytest.mark.parametrize("v", [",v=3", ",v=1", ",v=2.5", ',v="2"', ",v", ",v=?1", ""])
def test_a_record_of_another_version_is_dropped_with_a_reason(v: str) -> None:
    code, detail = rejection(record(v=v))
    assert code == "unsupported_version"
    assert "v=2" in detail


def test_dashjs_default_keys_are_rejected_with_the_setting_that_is_missing() -> None:
    code, detail = rejection(f"e=t,ts={T0},v=2")
    assert code == "missing_field"
    assert "no sid and sn" in detail
    assert "enabledKeys" in detail


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (f'cid="f",e=t,sid="s",ts={T0},v=2', "missing_field", "no sn"),
        (f'cid="f",e=t,sn=1,ts={T0},v=2', "missing_field", "no sid"),
        (f'cid="f",e=t,sid=5,sn=1,ts={T0},v=2', "missing_field", "valid sid"),
        (f'cid="f",e=t,sid="s",sn=-1,ts={T0},v=2', "missing_field", "valid"),
        (f'cid="f",e=t,sid="s",sn=1.5,ts={T0},v=2', "missing_field", "valid"),
        (f'e=t,sid="s",sn=1,ts={T0},v=2', "missing_field", "contentId"),
        ('cid="f",e=t,sid="s",sn=1,v=2', "missing_field", "ts"),
        ('cid="f",e=t,sid="s",sn=1,ts="now",v=2', "missing_field", "ts"),
        (f'cid="f",e=t,sid="{"s" * 256}",sn=1,ts={T0},v=2', "wrong_length", "sid"),
        (f'cid="{"f" * 256}",e=t,sid="s",sn=1,ts={T0},v=2', "wrong_length", "cid"),
        (f'cid="f",e=t,sid="s",sn=10000001,ts={T0},v=2', "out_of_range", "sn"),
        ("hello", "unsupported_version", "v=2"),
    ],
)
def test_a_record_that_belongs_to_nothing_is_rejected_with_one_reason(text: str, code: str, word: str) -> None:
    got, detail = rejection(text)
    assert got == code
    assert word in detail


def test_a_rejected_record_never_spoils_its_neighbours() -> None:
    result = decoded(record(sn=1), "garbage", record(sn=2))
    assert [e.seq for e in result.events] == [1, 2]
    assert result.places == [0, 2]
    assert [r.index for r in result.rejected] == [1]


def test_a_malformed_value_is_ignored_by_itself_and_counted() -> None:
    result = decoded(record(extra=",br=(1,bl=((,mtp=1e5"))
    assert (result.events[0].type, result.events[0].bitrate_kbps) == ("play", None)
    assert result.ignored_fields == 3


def test_bytes_that_are_no_text_spoil_only_their_value() -> None:
    result = decode(record(extra=',cdn="\u00e9"').encode("latin-1"), channel_id=None)
    assert (result.events[0].type, result.events[0].cdn, result.ignored_fields) == ("play", None, 1)


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf\n"])
def test_a_body_without_a_record_is_an_empty_beacon(body: bytes) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode(body, channel_id=None)
    assert caught.value.code == "empty_beacon"


def test_more_records_than_a_beacon_may_hold_are_refused() -> None:
    body = (record() + "\n") * MAX_EVENTS
    assert len(decode(body.encode(), channel_id=None).events) == MAX_EVENTS
    with pytest.raises(UndecodableError) as caught:
        decode((body + record()).encode(), channel_id=None)
    assert caught.value.code == "too_many_events"


def test_a_record_of_endless_length_is_not_read() -> None:
    assert rejection_code(record(extra=f',url="{"x" * 70_000}"')) == "malformed"


def rejection_code(text: str) -> str:
    return decoded(text).rejected[0].code


def test_no_record_needs_another_one(recording: Path) -> None:
    """Any worker may take any POST: taken one by one and in any order, records are the same events."""
    bodies = [msgspec.json.decode(line)["body"] for line in recording.read_bytes().splitlines()[1:]]
    together = [e for body in bodies for e in decode(body.encode(), channel_id="c").events]
    lines = [line for body in bodies for line in body.splitlines()]
    order = list(range(len(lines)))
    random.Random(recording.stem).shuffle(order)
    alone = {i: decode(lines[i].encode(), channel_id="c").events for i in order}
    assert [e for i in range(len(lines)) for e in alone[i]] == together


def test_memory_would_not_find_other_blind_views(recording: Path) -> None:
    """The table says: blind is a later record without `sta` of a view that has sent none yet. That needs memory;
    `sn` above 0 and no `sta` does not, and marks the same records of every real player."""
    events: dict[int, WireEvent] = {}
    states: dict[int, Any] = {}
    for line in recording.read_bytes().splitlines()[1:]:
        for text in msgspec.json.decode(line)["body"].splitlines():
            for e in decode(text.encode(), channel_id="c").events:
                events[e.seq], states[e.seq] = e, ",sta=" in text
    told = False
    for seq in sorted(events):
        told = told or states[seq]
        assert bool(events[seq].blind) == (seq > 0 and not told), seq


def test_a_body_of_thousands_of_tiny_members_is_not_read_to_its_end() -> None:
    tiny = record(extra="," + ",".join(f"a{i % 10}" for i in range(200)))
    found = decoded(*[tiny] * 60)
    assert 0 < len(found.events) < 60
    assert {one.code for one in found.rejected} == {"malformed"}
    assert "more members than one each 8 bytes" in found.rejected[0].detail
    assert len(decoded(*[record()] * 500).events) == 500, "no real body comes near"
