"""What only the passing of time tells: views that fell silent end, and the open interval's presence goes on.

In: states and an instant. Out: increments or runs of presence, and which states changed how. Pure functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from viewmeter.model.increments import Increments, Presence
from viewmeter.model.views import INTERVAL_CAP_MS, NEVER, SILENCE_MS, Exited, Failed, ViewStates

Array = npt.NDArray[Any]


def silent(states: ViewStates, now_ms: int) -> Array:
    """Return the rows of views of which nothing was received for more than 5 minutes and whose end has not come."""
    return np.flatnonzero(states.seen & ~states.ended & (states.last_received < now_ms - SILENCE_MS))


def end(states: ViewStates) -> tuple[Increments, ViewStates]:
    """End these silent views at their last instant + 5 minutes (DESIGN 3, "The end of a view")."""
    count = len(states)
    fresh = states.take(np.arange(count))
    out = Increments.builder(np.arange(count), states.instant + SILENCE_MS)
    out.of_interval(states.bitrate_kbps, states.cdn)
    gave_up = states.last_word_error & (states.failed == Failed.NO)
    left = ~states.played & ~gave_up & (states.failed == Failed.NO)
    out.add("failures", np.flatnonzero(gave_up), 1)
    out.add("exits_before_start", np.flatnonzero(left), 1)
    fresh.failed[gave_up] = Failed.UNKNOWN
    fresh.exited[left] = Exited.COUNTED
    fresh.ended[:] = True
    return out.build(), fresh


def presence(states: ViewStates, until_ms: int) -> tuple[Presence, Array, Array]:
    """Return presence in the open intervals before `until_ms`, not yet claimed: runs, rows, their new present_until."""
    alive = states.seen & (states.last_active != NEVER)
    start = np.maximum(states.instant, states.present_until)
    stop = np.minimum(states.last_active + INTERVAL_CAP_MS, until_ms)
    rows = np.flatnonzero(alive & (stop > start))
    return Presence.of(rows, start[rows], stop[rows], 1), rows, stop[rows]
