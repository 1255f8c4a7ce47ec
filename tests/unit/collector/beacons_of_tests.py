"""Events as the collector's tests write them."""

from __future__ import annotations

from typing import Any

from viewmeter.model.events import WireEvent

T0 = 1_764_000_000_000


def event(**fields: Any) -> WireEvent:
    """Return a heartbeat, changed by `fields`."""
    base = {"type": "heartbeat", "ts": T0, "view_id": "view", "seq": 0, "video_id": "v1", "channel_id": "c1"}
    return WireEvent(**(base | fields))
