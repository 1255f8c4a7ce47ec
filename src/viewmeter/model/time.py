"""Time as this house counts it: whole milliseconds since the epoch, UTC, half-open ranges.

Promised: nothing here asks what time it is; every function takes the time as an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
QUARTER_MS: Final = 15 * MINUTE_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS = timedelta(milliseconds=1)


class Interval(NamedTuple):
    """A half-open range `[start_ms, end_ms)` of instants."""

    start_ms: int
    end_ms: int


def floor_to(instant_ms: int, step_ms: int) -> int:
    """Return the start of the `step_ms` bucket, aligned to the epoch, that holds the instant."""
    return instant_ms - instant_ms % step_ms


def to_ms(moment: datetime) -> int:
    """Return an aware datetime as ms since the epoch, exactly (no float on the way)."""
    return (moment - _EPOCH) // _ONE_MS


def from_ms(instant_ms: int, zone: tzinfo = UTC) -> datetime:
    """Return the instant as an aware datetime of `zone`."""
    return (_EPOCH + instant_ms * _ONE_MS).astimezone(zone)


def rfc3339(instant_ms: int, zone: tzinfo = UTC) -> str:
    """Write an instant as the API does: `Z` in UTC, the zone's offset elsewhere; ms only where there are any."""
    moment = from_ms(instant_ms, zone)
    text = moment.isoformat(timespec="milliseconds" if instant_ms % SECOND_MS else "seconds")
    return text.removesuffix("+00:00") + "Z" if zone is UTC else text
