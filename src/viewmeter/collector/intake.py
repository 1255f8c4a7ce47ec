"""What holds for every dialect: the sender's clock, the age of events, and the channel that a key may write to.

In: decoded events, the key, and when the beacon was sent and received. Out: the events to keep, the shift of their
`ts`, and the rejections. Promised: one bad event costs only itself; a beacon without a bad one is checked by three
passes in C, over the columns that `columns.py` needs anyway.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import msgspec

from viewmeter.collector.columns import CHANNEL, TS, Fields, Terms, transposed
from viewmeter.collector.dialects import MAX_TS_MS, Decoded, Rejection
from viewmeter.collector.senders import Sender
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import TenantHashes
from viewmeter.model.events import WireEvent
from viewmeter.model.time import HOUR_MS, MINUTE_MS, rfc3339

VIEW: Final = WireEvent.__struct_fields__.index("view_id")
VIEWER: Final = WireEvent.__struct_fields__.index("viewer_id")


class Taken(msgspec.Struct, gc=False):
    """What is left of a beacon: the events to keep, transposed (empty: none)."""

    events: Fields
    shift_ms: int
    rejected: list[Rejection]


def clock_shift(sent_at: str | None, received_at: int, tolerance_ms: int) -> int:
    """Return what to add to each `ts`: the difference of the clocks where it exceeds the tolerance, else 0.

    A `t` that is no instant is ignored: it is the player's help, not its duty.
    """
    if not sent_at:
        return 0
    try:
        sent = float(sent_at)
    except ValueError:
        return 0
    if not 0 <= sent <= MAX_TS_MS:  # nor where it is NaN
        return 0
    shift = received_at - round(sent)
    return shift if abs(shift) > tolerance_ms else 0


def in_time(sent_at: str | None, received_at: int, settings: CollectorSettings) -> tuple[int, int, int]:
    """Return the shift of each `ts`, and between which instants of the sender's clock it is in time."""
    shift = clock_shift(sent_at, received_at, settings.skew_tolerance_ms)
    return shift, received_at - settings.max_age_ms - shift, received_at + settings.max_ahead_ms - shift


def own_channel(channels: tuple[str, ...] | None) -> str | None:
    """Return the channel of events that name none: the only one of the key. None: it has several, or all."""
    return channels[0] if channels is not None and len(channels) == 1 else None


def terms_of(
    hashes: TenantHashes, sender: Sender, channels: tuple[str, ...] | None, settings: CollectorSettings
) -> Terms:
    """Return what holds for all bodies of a sender. `channels`: those of the key, None = all."""
    return Terms(
        own=own_channel(channels),
        channels=channels,
        views=hashes.views,
        viewers=hashes.viewers,
        sender=sender,
        tenant_id=hashes.id,
        anonymous=sender.anonymous,
        tolerance_ms=settings.skew_tolerance_ms,
        max_age_ms=settings.max_age_ms,
        max_ahead_ms=settings.max_ahead_ms,
    )


def take(
    decoded: Decoded,
    channels: tuple[str, ...] | None,
    sent_at: str | None,
    received_at: int,
    settings: CollectorSettings,
) -> Taken:
    """Check what is the same for every dialect. `channels`: those of the key, None = all of the tenant."""
    if not decoded.events:
        return Taken((), 0, decoded.rejected)
    shift, oldest, newest = in_time(sent_at, received_at, settings)
    own = own_channel(channels)
    fields = transposed(decoded.events)
    named = set(fields[CHANNEL])
    if own is not None and (None in named or "" in named):
        for event in decoded.events:
            event.channel_id = event.channel_id or own
        fields = transposed(decoded.events)
        named = set(fields[CHANNEL])
    # Half a ms of tolerance at both ends, since `ts` is rounded afterwards.
    timely = min(fields[TS]) >= oldest - 0.5 and max(fields[TS]) <= newest + 0.5
    if timely and None not in named and "" not in named and (channels is None or named.issubset(channels)):
        return Taken(fields, shift, decoded.rejected)
    return _one_by_one(decoded, channels, shift, oldest, newest, settings)


def unfollowed(events: Fields) -> Fields:
    """Return the events of a sender that asked not to be followed: each viewer is known by its view alone."""
    return (*events[:VIEWER], events[VIEW], *events[VIEWER + 1 :])


def _one_by_one(
    decoded: Decoded,
    channels: tuple[str, ...] | None,
    shift: int,
    oldest: int,
    newest: int,
    settings: CollectorSettings,
) -> Taken:
    kept: list[WireEvent] = []
    rejected = list(decoded.rejected)
    places = decoded.places if decoded.places is not None else range(len(decoded.events))
    for place, event in zip(places, decoded.events, strict=True):
        reason = _why_not(event, channels, shift, oldest, newest, settings)
        if reason is None:
            kept.append(event)
        else:
            rejected.append(Rejection(place, *reason, msgspec.json.encode(event), written_as="native"))
    rejected.sort(key=attrgetter("index"))
    return Taken(transposed(kept) if kept else (), shift, rejected)


def _why_not(
    event: WireEvent,
    channels: tuple[str, ...] | None,
    shift: int,
    oldest: int,
    newest: int,
    settings: CollectorSettings,
) -> tuple[str, str] | None:
    if not event.channel_id:
        return "missing_field", "`channel_id` is required and absent, since the key is not bound to one channel"
    if channels is not None and event.channel_id not in channels:
        return "channel_mismatch", f"the key may not write to channel {event.channel_id[:60]!r}"
    corrected = f"{rfc3339(round(event.ts) + shift)}" + (" (clock corrected)" if shift else "")
    if event.ts < oldest - 0.5:
        hours = settings.max_age_ms / HOUR_MS
        return "ts_too_old", f"`ts` is {corrected}: older than {hours:g} hours; `viewmeter import` takes older events"
    if event.ts > newest + 0.5:
        minutes = settings.max_ahead_ms / MINUTE_MS
        return (
            "ts_in_future",
            f"`ts` is {corrected}: more than {minutes:g} minutes ahead; send `t`, the clock at sending",
        )
    return None
