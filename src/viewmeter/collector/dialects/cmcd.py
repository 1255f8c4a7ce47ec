"""The CMCD dialect: what hls.js, dash.js and Shaka Player send of themselves, as events.

In: a body of CMCD version 2 event mode (CTA-5004-B): records, one a line. Out: `Decoded`. Promised: a
malformed value is ignored by itself, a record that cannot be attributed is rejected with a reason that names
the player setting to change, and each record is decided by itself: no memory, so any worker takes any POST.
Not done: request mode (a CDN's business), and guessing what a player does not say (docs/how-to/players.md).
What players get wrong is mended by name and counted (`cmcd_quirks.py`). Why each record becomes which event, and why no
memory is needed: decision 0021.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

from viewmeter.collector.dialects import (
    MAX_COUNT,
    MAX_EVENTS,
    MAX_KBPS,
    MAX_MS,
    MAX_PLAYBACK_RATE,
    MAX_TS_MS,
    Decoded,
    Rejection,
    UndecodableError,
)
from viewmeter.collector.dialects.cmcd_keys import fits
from viewmeter.collector.dialects.cmcd_records import MAX_RECORD_CHARS, Known, Value, read_record
from viewmeter.model.events import MAX_ID_CHARS, MAX_SEQ, MAX_TEXT_CHARS, WireEvent, WireType

VERSION: Final = 2
_IDENTITY: Final = ("cid", "e", "sid", "sn", "sta", "ts", "v")
_LISTS: Final = ("ab", "br", "bsa", "bsda", "ec", "pb")
WANTED: Final = frozenset((*_IDENTITY, *_LISTS, "cdn", "msd", "pr", "pt", "st", "ttfb"))
"""The keys that carry something for us; the others of the standard are read over."""

MAX_TTFB_MS: Final = 600_000
"""A longer one is no duration but a wall clock (`absolute_ttfb`)."""

_FREE_MEMBERS: Final = 512
_LEAST_MEMBER_BYTES: Final = 8
"""Members of real records have 9 bytes and more, commas included. Thousands of shorter ones would only cost time."""

STATES: Final[dict[str, WireType]] = {
    "d": "request",  # preloading
    "s": "request",  # starting
    "p": "play",
    "a": "pause",
    "k": "seek",
    "r": "buffer",
    "w": "buffer",  # waiting, e.g. for the end of a seek
    "e": "complete",
    "f": "error",  # "fatal", but dash.js recovers from it: fatality unknown
    "q": "exit",
}
"""What a change to a player state (`e=ps`, key `sta`) means."""

STREAM_TYPES: Final = {"v": "vod", "l": "live", "ll": "live"}

Members: TypeAlias = "dict[str, Value]"


class _RejectedError(Exception):
    """This record cannot become an event. `code` is one of `EVENT_CODES`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def decode(body: bytes, *, channel_id: str | None, player: str | None = None) -> Decoded:
    """Return the events of a POST. `player` is a name for the dimension `player`, since no record carries it.

    Raises `UndecodableError` where there is no record at all, or more than MAX_EVENTS.
    """
    events: list[WireEvent] = []
    places: list[int] = []
    rejected: list[Rejection] = []
    quirks: Counter[str] = Counter()
    ignored = 0
    reading = _Reading(_FREE_MEMBERS + len(body) // _LEAST_MEMBER_BYTES)
    for index, line in enumerate(_lines(body)):
        try:
            event, malformed = _event(line, channel_id, player, quirks, reading)
        except _RejectedError as why:
            rejected.append(Rejection(index, why.code, why.detail, line.encode("utf-8", "replace")))
        else:
            events.append(event)
            places.append(index)
            ignored += malformed
    return Decoded(events, rejected, places if rejected else None, ignored, quirks or None)


class _Reading:
    """Reads the records of one body. left: how many members it may still have."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._known: dict[str, Known] = {}

    def record(self, line: str) -> tuple[Members, int]:
        """Return the wanted members of a record, and how many of its values are malformed."""
        if len(line) > MAX_RECORD_CHARS:
            detail = f"The record has {len(line)} characters; at most {MAX_RECORD_CHARS} are read."
            raise _RejectedError("malformed", detail)
        if self._left <= 0:
            detail = f"The body has more members than one each {_LEAST_MEMBER_BYTES} bytes; no player's has."
            raise _RejectedError("malformed", detail)
        members, malformed, read = read_record(line, WANTED, fits, self._known)
        self._left -= read
        return members, malformed


def _lines(body: bytes) -> list[str]:
    """Split a body into records. Players end each with LF; CRLF and blank lines are as good."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if not lines:
        detail = "The body holds no CMCD record: send records of CMCD event mode (v=2), one a line."
        raise UndecodableError("empty_beacon", detail)
    if len(lines) > MAX_EVENTS:
        detail = f"The body holds {len(lines)} records, at most {MAX_EVENTS} are taken: lower `batchSize`."
        raise UndecodableError("too_many_events", detail)
    return lines


def _event(
    line: str, channel_id: str | None, player: str | None, quirks: Counter[str], reading: _Reading
) -> tuple[WireEvent, int]:
    """Return the event of one record and how many of its values were ignored. Adds to `quirks`."""
    members, malformed = reading.record(line)
    if members.get("v") == VERSION:
        for quirk in _quirks(members):
            quirks[quirk] += 1
    view_id, seq, video_id, ts = _identity(members)
    kind, state = members.get("e"), members.get("sta")
    event = WireEvent(
        type="other", ts=ts, view_id=view_id, seq=seq, video_id=video_id, channel_id=channel_id, player=player
    )
    # A player that tells its state puts `sta` on every record but its very first one (0021): a later record
    # without it comes from a player that does not tell. This needs no memory of what the view sent before.
    if state is None and seq > 0:
        event.blind = True
    event.type = _type(kind, state, seq)
    if event.blind and (startup_ms := _number(members, "msd", MAX_MS)) is not None:
        event.type, event.startup_ms = (
            "play",
            startup_ms,
        )  # sent once, with the first record after the first frame
    if event.type == "error" and kind == "ps":
        event.halted = True  # the picture stands, whether or not the player recovers (decision 0003)
    _details(event, members, kind, state)
    return event, malformed


def _quirks(members: Members) -> list[str]:
    """Return which of `cmcd_quirks.QUIRKS` the record shows."""
    if "sid" not in members and "sn" not in members:
        return ["default_keys"]
    found = []
    kind, state = members.get("e"), members.get("sta")
    if state is None:
        if members.get("sn"):
            found.append("no_states")
            if "msd" in members:
                found.append("startup_without_states")
    elif "msd" in members:
        found.append("msd_beside_states")
    if kind == "t" and state not in (None, "p"):
        found.append("heartbeat_not_playing")
    elif kind == "ps" and state == "f":
        found.append("fatal_that_recovers")
    elif kind == "e" and "ec" not in members:
        found.append("error_without_code")
    if any(key in members and not isinstance(members[key], tuple) for key in _LISTS):
        found.append("bare_list")
    if "ttfb" in members and _number(members, "ttfb", MAX_TTFB_MS) is None:
        found.append("absolute_ttfb")
    return found


def _identity(members: Members) -> tuple[str, int, str, float]:
    """Return view, seq, video and ts, or refuse the record with the one reason that helps most."""
    version = members.get("v", 1)
    if version != VERSION:
        said = f"v={version}" if "v" in members else "no v, which means version 1"
        detail = f"The record has {said}; event mode needs v=2: set `version: 2` in the player's CMCD settings."
        raise _RejectedError("unsupported_version", detail)
    view_id, seq = _text(members, "sid"), _integer(members, "sn")
    if not view_id or seq is None:
        raise _RejectedError("missing_field", _no_session(members))
    video_id, ts = _text(members, "cid"), _number(members, "ts", MAX_TS_MS)
    if not video_id:
        detail = "The record has no cid, which names the video: set `contentId` (dash.js: `cid`) in the player."
        raise _RejectedError("missing_field", detail)
    if ts is None:
        detail = "The record has no valid ts (ms since the epoch), which event mode requires."
        raise _RejectedError("missing_field", detail)
    for key, value in (("sid", view_id), ("cid", video_id)):
        if len(value) > MAX_ID_CHARS:
            raise _RejectedError(
                "wrong_length", f"{key} has {len(value)} characters; at most {MAX_ID_CHARS} are taken."
            )
    if seq > MAX_SEQ:
        raise _RejectedError("out_of_range", f"sn={seq} is above {MAX_SEQ}.")
    return view_id, seq, video_id, ts


def _no_session(members: Members) -> str:
    absent = " and ".join(key for key in ("sid", "sn") if key not in members) or "valid sid and sn"
    return (
        f"The record has no {absent}, so that it belongs to no view: let the event target send sid and sn "
        "(dash.js: it sends only e, ts and v unless `enabledKeys` of the event target lists them)."
    )


def _type(kind: Value | None, state: Value | None, seq: int) -> WireType:
    """Return what a record means. Only `ps` moves the state: `sta` of other records may be stale (0021)."""
    if kind == "ps" and isinstance(state, str):
        return STATES.get(state, "other")
    if kind == "e":
        return "error"
    if seq == 0 and state is None:
        return "request"  # the earliest sign of life; as a heartbeat it would count a play before any picture
    if kind == "bc":
        return "quality_change"
    # A heartbeat means playing where nothing else is known of the view; so only one that does not deny it.
    return "heartbeat" if kind == "t" and state in (None, "p") else "other"


def _details(event: WireEvent, members: Members, kind: Value | None, state: Value | None) -> None:
    """Fill in what else the record says."""
    # What is shown says more than what is selected, and that more than what the combination may need at most.
    event.bitrate_kbps = next(
        (sum_ for key in ("pb", "br", "ab") if (sum_ := _sum(members, key, MAX_KBPS)) is not None), None
    )
    event.rebuffer_count = _sum(members, "bsa", MAX_COUNT)
    event.rebuffered_ms = _sum(members, "bsda", MAX_MS)
    event.position_ms = _number(members, "pt", MAX_MS)
    event.playback_rate = _number(members, "pr", MAX_PLAYBACK_RATE)
    if event.playback_rate is None and kind == "t" and state == "p":
        event.playback_rate = 1.0  # players leave `pr` out when it is 1
    if "st" in members:
        event.stream_type = STREAM_TYPES.get(str(members["st"]))
        event.duration_ms = 0 if event.stream_type == "live" else None
    if "cdn" in members:
        event.cdn = (_text(members, "cdn") or "")[:MAX_ID_CHARS] or None
    if "ec" in members:
        event.error_code = _error_code(members["ec"])


def _text(members: Members, key: str) -> str | None:
    """Return a string or token; any other type is a malformed value."""
    value = members.get(key)
    return value if isinstance(value, str) else None


def _integer(members: Members, key: str) -> int | None:
    value = members.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(members: Members, key: str, at_most: float) -> float | None:
    """Return a number in `0..at_most`; anything else is a malformed value."""
    value = members.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= at_most else None


def _sum(members: Members, key: str, at_most: float) -> float | None:
    """Return a list of numbers as one: bitrates play together (dash.js splits them, `(900;v 32;a)`, Shaka sums,
    `(932)`), and each starvation of `bsa` and `bsda` is listed under its one cause. None: malformed or empty.
    """
    found = members.get(key)
    values = [item[0] for item in found] if isinstance(found, tuple) else [found]
    numbers = [value for value in values if isinstance(value, int | float) and value is not True and value is not False]
    total = sum(numbers)
    return total if numbers and min(numbers) >= 0 and total <= at_most else None


def _error_code(value: Value) -> str | None:
    """Return the codes, joined where there are several: the standard says a list, dash.js sends `ec=27`."""
    items = [item.value for item in value] if isinstance(value, tuple) else [value]
    return ",".join(str(item) for item in items if not isinstance(item, bool))[:MAX_TEXT_CHARS] or None
