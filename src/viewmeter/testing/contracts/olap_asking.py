"""How the suites of the batch side close hours, build periods and ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from viewmeter.model.time import Interval
from viewmeter.olap.protocol import (
    Coverage,
    Filter,
    HourRun,
    Part,
    Scan,
    Snapshot,
    Table,
    TimeSeriesStore,
    Visible,
)
from viewmeter.testing.contracts.facts import DAY, HOUR, T0, Fact, hours_of
from viewmeter.testing.contracts.olap import ACME

Rows = list[dict[str, Any]]


def run_of(seen: int = 0, version: int = 1, marks: tuple[int, ...] = ()) -> HourRun:
    """Return a run as the batch jobs have it."""
    return HourRun(version, seen, T0, marks)


def put(
    store: TimeSeriesStore,
    hour: int,
    facts: Sequence[Fact],
    run: HourRun | None = None,
    only: tuple[str, ...] | None = None,
) -> None:
    """Close an hour (counted from T0) with those of the facts that lie in it; `only` some rollups: it is quicker.

    Without `run`, by one that saw every commit.
    """
    start = T0 + hour
    rows, viewers = hours_of([f for f in facts if start <= f.at_ms < start + HOUR], only)
    if run is None:
        last = store.last_commit()
        run = run_of(last.number if last else 0)
    store.put_hour(start, rows, viewers.drop_columns(["hour_ms"]), run)


def build_due(store: TimeSeriesStore, before: int) -> None:
    """Build everything that is complete at an instant counted from T0."""
    for one in store.due(T0 + before):
        store.build(one.kind, one.start_ms, one.zone)


def layers(coverage: Coverage, interval: Interval, tier: Table) -> tuple[Part, ...]:
    """Plan plainly: closed hours from one tier, open ones from the speed layer."""
    parts: list[Part] = []
    at = interval.start_ms
    for closed in coverage.closed_hours:
        start, end = max(closed.start_ms, interval.start_ms), min(closed.end_ms, interval.end_ms)
        if start < end:
            parts += [Part("speed", Interval(at, start)), Part(tier, Interval(start, end))]
            at = end
    return (*parts, Part("speed", Interval(at, interval.end_ms)))


def ask(
    state: Snapshot,
    *measures: str,
    parts: Iterable[Part],
    rollup: str = "video",
    edges: Sequence[int] = (0, DAY),
    visible: Visible = ACME,
    dimensions: tuple[str, ...] = (),
    filters: tuple[Filter, ...] = (),
) -> Rows:
    """Ask; `edges` count from T0. Rows come sorted."""
    at = tuple(T0 + edge for edge in edges)
    table = state.scan(Scan(rollup, measures, at, visible, dimensions, filters, tuple(parts)))
    keys = [n for n in ("bucket", "time_ms", *dimensions) if n in table.column_names]
    return table.sort_by([(k, "ascending") for k in keys]).to_pylist()  # type: ignore[no-any-return]


def total(store: TimeSeriesStore, measure: str = "plays", tier: Table = "minute", days: float = 1) -> int:
    """Return one measure over the first days, as the plain plan answers it."""
    with store.snapshot() as state:
        end = int(days * DAY)
        parts = layers(state.coverage("UTC"), Interval(T0, T0 + end), tier)
        rows = ask(state, measure, parts=parts, edges=(0, end))
    return rows[0][measure] if rows else 0


def part(table: Table, start: int = 0, end: int = DAY, zone: str = "UTC") -> tuple[Part, ...]:
    """Return one part, counted from T0."""
    return (Part(table, Interval(T0 + start, T0 + end), zone),)
