"""A real store, filled by facts, and a way to ask."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.olap.embedded import DuckDBSettings, DuckDBStore
from viewmeter.olap.protocol import Commit, Visible
from viewmeter.query import Analytics, Answer, QuerySettings, parse_query
from viewmeter.testing.contracts.facts import DAY, T0, Fact, rows_of

NOW = T0 + 2 * DAY
Ask = Callable[..., Answer]


class House:
    """A store and the room that answers from it."""

    def __init__(self, path: Path) -> None:
        self.store = DuckDBStore(path, DuckDBSettings(threads=1, readers=2))
        self.live = MemoryLiveStore()
        self.analytics = Analytics(self.store, self.live)
        self.number = 0

    def hold(self, *facts: Fact) -> None:
        """Append facts as one micro-batch."""
        self.number += 1
        self.store.append(rows_of(facts), Commit(self.number, NOW, {0: self.number}, NOW))

    def with_settings(self, settings: QuerySettings) -> None:
        self.analytics = Analytics(self.store, self.live, settings)

    def ask(
        self,
        metrics: str | Sequence[str],
        visible: Visible = Visible("acme"),  # noqa: B008 - frozen
        now_ms: int = NOW,
        watermark_ms: int | None = NOW,
        start: int = 0,
        end: int = DAY,
        **raw: Any,
    ) -> Answer:
        """Ask; start and end count from T0."""
        body = {"metrics": metrics, "time_range": {"start": T0 + start, "end": T0 + end}, **raw}
        return self.analytics.query(parse_query(body, now_ms=now_ms), visible, now_ms, watermark_ms)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store.duckdb")
    yield made
    made.store.close()
