"""Dialects: how a sender writes events. A body in, `WireEvent`s and rejections out.

In: the decompressed body of one POST, the channel that the key (or the URL) supplies, and the player where the URL
names it. Out: `Decoded`. Promised: a
bad event becomes a `Rejection` and never spoils its neighbours; only a body in which no event can be told apart raises
`UndecodableError`. Not done here: whatever is the same for every dialect (the sanity of `ts`, whether the key may write
to the channel, enrichment); see `collector/intake.py`.

A dialect is a module with `decode(body: bytes, *, channel_id: str | None, player: str | None = None) -> Decoded`:

- Each event obeys the bounds below (`native.py` lets msgspec check them while it parses). What a dialect cannot know is
  left None; `channel_id` may stay None where neither the event nor the argument names one, and is then rejected later.
- An event that names a channel keeps that name, also where the argument has another one: the mismatch is found later.
- `Rejection.index` is the place of the event (or line, or record) in the body, from 0.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from viewmeter.model.events import WireEvent

MAX_EVENTS = 500
"""Events of one beacon. More is 413: a client that has more sends two beacons."""

MAX_MS = 10 * 366 * 86_400_000
"""The largest position, duration or sum: ten years in ms. Beyond it a number is an accident."""

MAX_TS_MS = 4_102_444_800_000
"""2100-01-01. Keeps `ts` inside of every engine's time type; how old or new it may be is decided later."""

MAX_COUNT = 10_000_000
MAX_KBPS = 100_000_000
MAX_PLAYBACK_RATE = 1_000.0


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An event that cannot be taken, and why. `code` is one of `EVENT_CODES`; `raw` goes to the dead letters.

    written_as: the dialect of `raw`, where it is not that of the body.
    """

    index: int
    code: str
    detail: str
    raw: bytes = b""
    written_as: str | None = None


class Decoded(msgspec.Struct, gc=False):
    """What a body held. `places[i]` is where `events[i]` stood in the body; None = all in a row from 0."""

    events: list[WireEvent]
    rejected: list[Rejection] = []
    places: list[int] | None = None
    ignored_fields: int = 0  # unknown fields and malformed values that were skipped by themselves
    quirks: dict[str, int] | None = None  # what is known of a player and was mended, by name (cmcd_quirks.py)


class UndecodableError(Exception):
    """No event can be told apart in this body. `code` is one of the problems of `model/problems.py`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Dialect(Protocol):
    """The `decode` function of a dialect's module."""

    def __call__(self, body: bytes, *, channel_id: str | None, player: str | None = None) -> Decoded:
        """Return what the body holds. `player`: as the URL names it. Raises `UndecodableError`."""
        ...


EVENT_CODES: dict[str, str] = {
    "not_an_object": "The element is no JSON object.",
    "missing_field": "A required field is absent or null.",
    "wrong_type": "A field has another JSON type than it should.",
    "unknown_type": "`type` is none of the known event types.",
    "out_of_range": "A number is below or above what it may be.",
    "wrong_length": "An id is empty or longer than 255 characters.",
    "invalid_text": "Text is not valid Unicode, or an id holds the character U+0000.",
    "ts_too_old": "After clock correction the event is older than 72 hours (by default).",
    "ts_in_future": "After clock correction the event is more than 5 minutes ahead (by default).",
    "channel_mismatch": "The key may not write to the channel that the event names.",
    "unsupported_version": "The record's version of its dialect is not known here.",
    "malformed": "The record cannot be parsed.",
}
"""Why single events are rejected: code to meaning. Stable, listed in the docs, counted in metrics."""
