"""Dead letters hold nothing that tells who watched, and a replay still counts the same viewer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewmeter.collector.dialects import Decoded, UndecodableError, cmcd, native
from viewmeter.collector.redaction import redacted, viewer_of
from viewmeter.collector.viewers import keyed_hash

SECRET = "ann-who-watches"


def hash_of(viewer_id: str) -> int:
    return keyed_hash(b"secret", viewer_id)


def kept(raw: Any, detail: str = "why", dialect: str = "native") -> bytes:
    text = raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
    return redacted(dialect, text, detail, hash_of)[0]


EVENT = {"type": "dance", "ts": 1.5, "view_id": "v", "seq": 0, "video_id": "f", "viewer_id": SECRET, "played_ms": None}


def test_an_event_is_kept_but_for_its_viewer() -> None:
    event = msgspec.json.decode(kept(EVENT))
    mark = event.pop("viewer_id")
    assert event == {name: value for name, value in EVENT.items() if name != "viewer_id"}
    assert SECRET not in mark
    assert viewer_of(mark, hash_of) == hash_of(SECRET)
    assert viewer_of(SECRET, hash_of) == hash_of(SECRET), "a letter of a release that did not redact"


def test_of_who_asked_not_to_be_followed_not_even_a_hash_is_kept() -> None:
    raw, _ = redacted("native", msgspec.json.encode(EVENT), "why", None)
    assert msgspec.json.decode(raw)["viewer_id"] == ""


@pytest.mark.parametrize(
    "event",
    [
        {**EVENT, "user": SECRET, "e-mail": [SECRET], "nested": {"viewer_id": SECRET}},
        {**EVENT, "viewer_id": {"id": SECRET}},
        {**EVENT, "viewer_id": [SECRET]},
        {**EVENT, "video_id": {"viewer_id": SECRET}},
        {**EVENT, "cdn": [[SECRET]]},
        {**EVENT, "viewer_id": SECRET * 100},
        SECRET,
        [SECRET],
        b'{"viewer_id":"' + SECRET.encode() + b'","ts":01}',
        b'{"viewer\\u005fid":"' + SECRET.encode() + b'"}',
        b'{"viewer_id":"' + SECRET.encode() + b'\xff"}',
        b'{"viewer_id":"' + SECRET.encode(),
    ],
)
def test_no_viewer_is_left_wherever_it_stood(event: Any) -> None:
    assert SECRET.encode() not in kept(event)


@pytest.mark.parametrize("value", [5, 5.5, True, None, 10**20])
def test_values_without_a_text_are_kept_as_they_are(value: object) -> None:
    assert msgspec.json.decode(kept(value)) == value


@pytest.mark.parametrize("viewer", [12345, 1.5, True, ["x"], {"x": 1}, "x" * 256])
def test_the_detail_does_not_show_the_viewer_either(viewer: object) -> None:
    result = native.decode(msgspec.json.encode([{**EVENT, "type": "play", "viewer_id": viewer}]))
    (rejection,) = result.rejected
    raw, detail = redacted("native", rejection.raw, rejection.detail, hash_of)
    assert detail == "`viewer_id` is another type than text, or too long"
    if not isinstance(viewer, str):
        assert [r.code for r in native.decode(b"[" + raw + b"]").rejected] == [rejection.code]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
fields = st.dictionaries(st.sampled_from([*native.NativeEvent.__struct_fields__, "colour", "nested"]), json_values)


@given(fields, fields)
def test_what_is_left_is_taken_or_refused_for_the_same_reason(some: dict[str, Any], more: dict[str, Any]) -> None:
    event = {
        "type": "play",
        "ts": 1,
        "view_id": "v",
        "seq": 0,
        "video_id": "f",
        **(more if len(some) % 2 else {}),
        **some,
    }
    whole = native.decode(b"[" + msgspec.json.encode(event) + b"]")
    left = native.decode(b"[" + kept(event) + b"]")
    long_viewer = isinstance(event.get("viewer_id"), str) and len(event["viewer_id"]) > 255
    if not long_viewer:
        assert [r.code for r in left.rejected] == [r.code for r in whole.rejected]
    assert [without_viewer(e) for e in left.events] == [without_viewer(e) for e in whole.events]


def without_viewer(event: Any) -> Any:
    return msgspec.structs.replace(event, viewer_id=None)


RECORD = 'br=(900;v 32;a),cid="film",e=ps,sid="s1",sn=4,sta=p,ts=1795569168892,v=3'


def test_a_record_keeps_what_is_ours_and_of_the_rest_the_names() -> None:
    raw = (
        "v=(,br=(1,"
        + RECORD
        + f',com.example-user="{SECRET}",url="https://cdn/x?token={SECRET}",nor=("{SECRET}"),su,mtp=(1'
    )
    assert kept(raw.encode(), dialect="cmcd").decode() == RECORD + ",com.example-user,url,nor,su,mtp"


@pytest.mark.parametrize(
    "noise", [SECRET, f'"{SECRET}"', f'x="{SECRET}', f"{SECRET}@example.org", f"=({SECRET}", "A" * 99_999]
)
def test_of_text_that_is_no_record_at_most_names_are_left(noise: str) -> None:
    left = kept(noise.encode(), dialect="cmcd")
    assert noise.encode() not in left or noise == SECRET, "a bare word is the name of a key"
    assert len(left) < 70_000


@given(st.text(max_size=200))
def test_records_decode_to_the_same_without_the_rest(noise: str) -> None:
    for text in (noise, f"{RECORD},{noise}", f"{RECORD.replace('v=3', 'v=2')},{noise}", f"{RECORD},v=(,{noise}"):
        line = " ".join(text.splitlines())
        assert outcome(kept(line.encode("utf-8", "replace"), dialect="cmcd")) == outcome(
            line.encode("utf-8", "replace")
        )


def outcome(body: bytes) -> Any:
    try:
        result: Decoded = cmcd.decode(body, channel_id="c")
    except UndecodableError as problem:
        if problem.code != "empty_beacon":
            raise
        return ["unsupported_version"], []  # nothing is left of the line but blanks, those of Unicode among them
    return [r.code for r in result.rejected], result.events
