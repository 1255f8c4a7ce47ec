"""The question as data, after parsing: everything is named, bounded and resolved to instants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from viewmeter.olap.protocol import Filter

Granularity = Literal["minute", "5m", "hour", "day", "week", "month", "total"]
GRANULARITIES: Final[tuple[Granularity, ...]] = ("minute", "5m", "hour", "day", "week", "month", "total")
Direction = Literal["asc", "desc"]

LIMIT_DEFAULT: Final = 1_000
LIMIT_MAX: Final = 10_000
METRICS_MAX: Final = 50
DIMENSIONS_MAX: Final = 6
FILTERS_MAX: Final = 20
FILTER_VALUES_MAX: Final = 1_000
VALUE_CHARS_MAX: Final = 1_024


@dataclass(frozen=True)
class Query:
    """One question. The range is whole minutes, half-open; `zone` names the calendar of the buckets."""

    start_ms: int
    end_ms: int
    metrics: tuple[str, ...]
    granularity: Granularity = "total"
    zone: str = "UTC"
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    order_by: tuple[tuple[str, Direction], ...] = ()
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None
    explain: bool = False
