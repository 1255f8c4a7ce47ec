"""Which hours have to run: a pure function of what is archived, closed, stale and carried.

In: the state of the archive, the store and the carries. Out: `Due`. Promised: hours in order; an hour whose result
stands on what is there is never named, so that looking twice finds nothing the second time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from viewmeter.batch.files import About
from viewmeter.model.time import HOUR_MS


@dataclass(frozen=True)
class Due:
    """Starts of hours, ascending."""

    first: tuple[int, ...]  # never ran
    again: tuple[int, ...]  # ran, and stand on what is no longer so


def due_hours(
    *,
    before_ms: int,
    archived: Mapping[int, int],
    closed: Container[int],
    stale: Iterable[int],
    with_rows: Iterable[int],
    carries: Mapping[int, About],
) -> Due:
    """Return the hours that begin before `before_ms` and have to run.

    archived: hour -> version of its events. closed: those of them that are. stale: closed hours. with_rows: open hours
    to which the speed layer appended. An hour follows one that left views open, although it has no events: they end
    there.
    """
    first: set[int] = set()
    again: set[int] = {*stale}
    for hour, version in archived.items():
        done = carries.get(hour)
        if done is not None and (done.kept or hour in closed):
            if done.archive_version != version:
                again.add(hour)
        else:  # never ran, or what it hands to the next hour is missing
            first.add(hour)
    first |= {*with_rows}
    for hour, done in carries.items():
        following = hour + HOUR_MS
        if done.counts.open_views and following not in carries:
            first.add(following)
    return Due(
        tuple(sorted(hour for hour in first - again if hour < before_ms)),
        tuple(sorted(hour for hour in again if hour < before_ms)),
    )
