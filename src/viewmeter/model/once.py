"""What the interval rule and late events count alike: each event by itself, and what a view counts once.

In: first rows (`NOWHERE` = none) and what the states say was counted before. Out: amounts in the builder. Promised: one
statement for both callers. Not done: finding the first rows; events in order and late ones differ in what proves what.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from viewmeter.model.events import EVENT_TYPES, EventType
from viewmeter.model.increments import Builder
from viewmeter.model.segments import NOWHERE
from viewmeter.model.views import ENGAGED_MS, Exited, ViewStates

Array = npt.NDArray[Any]


def count_events(out: Builder, rows: Array, kinds: Array) -> None:
    """Count the events of these rows, by type too."""
    out.add("events", rows, 1)
    for code, word in enumerate(EVENT_TYPES):
        out.add(f"events_{word}", rows[kinds == code], 1)
    out.add("seeks", rows[kinds == EventType.SEEK], 1)
    out.add("pauses", rows[kinds == EventType.PAUSE], 1)


def count_once(out: Builder, measure: str, first: Array, counted: Array) -> Array:
    """Count 1 at the first rows of views not counted yet, and mark them in `counted`; return those views."""
    news = np.flatnonzero((first != NOWHERE) & ~counted)
    out.add(measure, first[news], 1)
    counted[news] = True
    return news


def count_plays(out: Builder, first_proof: Array, blind: Array, fresh: ViewStates) -> None:
    """Count plays at their first proof, and the blind ones beside (decision 0001, point 9)."""
    news = count_once(out, "plays", first_proof, fresh.played)
    out.add("blind_plays", first_proof[news[blind[news]]], 1)


def is_engaged(played_ms: Array, duration_ms: Array) -> Array:
    """Return where a view is engaged: 30 s, or half of content of known length (decision 0001, point 1)."""
    engaged: Array = (played_ms >= ENGAGED_MS) | ((duration_ms > 0) & (2 * played_ms >= duration_ms))
    return engaged


def take_back_exits(out: Builder, first_proof: Array, first_fatal: Array, fresh: ViewStates) -> None:
    """Take back exits before start at the first later proof of playing or fatal error (point 7)."""
    redeemed = np.minimum(first_proof, first_fatal)
    redeemed[fresh.exited != Exited.COUNTED] = NOWHERE
    out.add("exits_before_start", redeemed[redeemed != NOWHERE], -1)
    fresh.exited[redeemed != NOWHERE] = Exited.TAKEN_BACK
