"""The rule, and the whole embedded engine (log, stream jobs, store, query room; a clock that is set) as subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch.child import run_here
from viewmeter.batch.embedded import BatchSettings, EmbeddedBatch
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.catalogue import METRICS, ROLLUPS
from viewmeter.model.events import view_key
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, rfc3339
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Filter, Part, Scan, Visible
from viewmeter.query import Analytics, QueryProblem, QuerySettings, parse_query
from viewmeter.stream.core import GRACE_MS, Core
from viewmeter.stream.embedded import EmbeddedStream
from viewmeter.testing import oracle
from viewmeter.testing.columns import to_table
from viewmeter.testing.scenario import START_MS, Clock, Difference, Expectation, Scenario, play
from viewmeter.testing.subject import Beacon, OracleSubject, Question, Subject, UnseenError

SAMPLE_MS = 10_000
FIRST_MS, LAST_MS = START_MS - 4 * DAY_MS, START_MS + 4 * DAY_MS


class EmbeddedSubject:
    """Appends beacons to a log; answers by the query API's own parser, planner and merge."""

    HOURS_STAY_OPEN = True

    def __init__(self, folder: Path) -> None:
        self.now_ms = START_MS
        self._fed: list[pa.Table] = []
        self.writer = EmbeddedLogWriter(folder / "log", 0, lambda: self.now_ms)
        self.store = DuckDBStore(folder / "store.duckdb")
        live = MemoryLiveStore()
        self.stream = EmbeddedStream(
            EmbeddedLogReader(folder / "log"), self.store, live, folder / "state", lambda: self.now_ms
        )
        self.analytics = Analytics(self.store, live, QuerySettings())
        self.stream.start()

    def close(self) -> None:
        self.stream.stop()
        self.store.close()
        self.writer.close()

    def feed(self, beacon: Beacon) -> None:
        self._fed.append(to_table(beacon.enriched()))

    def settle(self, now_ms: int) -> None:
        if self._fed:
            # As one batch, which no cut divides: the clock stands still meanwhile, so that the jobs, which run beside
            # the test, would take what they find alone for what nothing else will come before.
            fed = pa.concat_tables(self._fed).unify_dictionaries().combine_chunks()
            self._fed.clear()
            self.writer.append(fed.to_batches()[0])
        self.now_ms = now_ms
        self.stream.flush()

    def answer(self, question: Question) -> float | None:
        if question.at_ms is None and (
            question.start_ms % MINUTE_MS or (question.end_ms % MINUTE_MS and question.end_ms < LAST_MS)
        ):
            raise UnseenError
        if question.at_ms is not None and question.at_ms % SAMPLE_MS:
            raise UnseenError
        visible = Visible(question.tenant_id)
        if question.metric == "unique_viewers_exact":  # open hours have the sketch alone, and one this small is exact
            return self._metric(question, "unique_viewers", visible)
        if question.metric in METRICS and question.at_ms is None:
            return self._metric(question, question.metric, visible)
        return self._measure(question, visible)

    def _metric(self, question: Question, metric: str, visible: Visible) -> float | None:
        filters = [["is", name, [value]] for name, value in question.filters.items() if value != "any"]
        if question.filters.get("is_bot") == "any":
            filters.append(["is", "is_bot", ["true", "false"]])
        raw = {
            "metrics": [metric],
            "time_range": {
                "start": rfc3339(max(question.start_ms, FIRST_MS)),
                "end": rfc3339(min(question.end_ms, LAST_MS)),
            },
            "granularity": "total",
            "filters": filters,
        }
        raw |= {n: v for n in ("channel_id", "video_id") if (v := getattr(question, n)) is not None}
        query = parse_query(raw, now_ms=self.now_ms)
        try:
            found = self.analytics.query(query, visible, self.now_ms, self.now_ms)
        except QueryProblem as problem:
            if problem.code == "not_covered":  # mixed filters need the batch layer's `cross` rollup
                raise UnseenError from problem
            raise
        if (
            self.HOURS_STAY_OPEN and found.meta["closed_until"] is not None
        ):  # mixed filters are known of closed hours alone
            raise UnseenError
        value = found.rows[0][metric]
        return value if value is None else float(value)

    def _measure(self, question: Question, visible: Visible) -> float:
        """Ask the store itself for what is no metric: a raw measure, or a sample at an instant."""
        filters = {"is_bot": "false", **question.filters}
        filters |= {n: v for n in ("channel_id", "video_id") if (v := getattr(question, n)) is not None}
        filters = {name: value for name, value in filters.items() if value != "any"}
        rollup = min(
            (
                r
                for r in ROLLUPS.values()
                if question.metric in {m.name for m in r.measures} and {*filters} <= {*r.keys}
            ),
            key=lambda r: r.cost,
        )
        edges = (max(question.start_ms, FIRST_MS), min(question.end_ms, LAST_MS))
        if question.at_ms is not None:
            edges = (question.at_ms, question.at_ms + SAMPLE_MS)
        where = tuple(Filter(name, (value,)) for name, value in filters.items())
        asked = Scan(
            rollup.name, (question.metric,), edges, visible, filters=where, parts=self._parts(Interval(*edges))
        )
        found: pa.Table = self.store.scan(asked)
        return float(sum(found[question.metric].to_pylist()))

    def _parts(self, _interval: Interval) -> tuple[Part, ...]:
        return ()


class BatchSubject(EmbeddedSubject):
    """The same, but every hour that was touched is over, archived, computed by the batch jobs and closed."""

    HOURS_STAY_OPEN = False
    START_MS = START_MS + 59 * MINUTE_MS
    """Scenarios begin a minute before the hour is over, so that most views cross into the next one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._log = EmbeddedLogReader(folder / "log")
        self._archive = EmbeddedArchive(folder / "archive", self._log, lambda: self.now_ms)
        self._batch = EmbeddedBatch(
            self._archive, folder / "archive", self.store, folder / "batch", lambda: self.now_ms + 2 * HOUR_MS,
            BatchSettings(rerun_after_s=0), runner=run_here,
        )  # fmt: skip

    def settle(self, now_ms: int) -> None:
        super().settle(now_ms)
        self._batch.turn()
        assert self._batch.check() is None

    def close(self) -> None:
        self._archive.close()
        super().close()

    def _parts(self, interval: Interval) -> tuple[Part, ...]:
        return (Part("minute", interval),)


class RuleSubject(OracleSubject):
    """The interval rule itself, one step a beacon as it arrives; the oracle's questions, the rule's increments."""

    def __init__(self) -> None:
        super().__init__()
        self._core = Core()
        self._found: list[oracle.Increment] = []

    def feed(self, beacon: Beacon) -> None:
        super().feed(beacon)
        self._step([to_table(beacon.enriched())], beacon.received_at)

    def settle(self, now_ms: int) -> None:
        super().settle(now_ms)
        self._step([], now_ms + GRACE_MS)
        self._facts = self._found

    def _step(self, arrived: list[pa.Table], now_ms: int) -> None:
        names = {view_key(*key): key for key in ((e["tenant_id"], e["view_id"]) for e in self._events)}
        increments = self._core.step(arrived, now_ms).increments
        for measure, (rows, amounts) in increments.amounts.items():
            for row, amount in zip(rows.tolist(), amounts.tolist(), strict=True):
                code = int(increments.cdn[row])
                self._found.append(
                    oracle.Increment(
                        names[int(self._core.keys[increments.view[row]])],
                        int(increments.instant[row]),
                        measure,
                        amount,
                        int(increments.bitrate_kbps[row]) or None,
                        self._core.cdns[code] if code >= 0 else "unknown",
                    )
                )


@contextmanager
def batch(folder: Path) -> Iterator[BatchSubject]:
    subject = BatchSubject(folder)
    try:
        yield subject
    finally:
        subject.close()


@contextmanager
def embedded(folder: Path) -> Iterator[EmbeddedSubject]:
    subject = EmbeddedSubject(folder)
    try:
        yield subject
    finally:
        subject.close()


class Own:
    """A subject that others share, as one of them sees it: its tenants are nobody else's. All settle together."""

    def __init__(self, shared: Subject, name: str) -> None:
        self._shared, self._name = shared, name
        self.fed: list[Beacon] = []

    def feed(self, beacon: Beacon) -> None:
        self.fed.append(replace(beacon, tenant_id=f"{self._name}-{beacon.tenant_id}"))

    def settle(self, now_ms: int) -> None:
        raise AssertionError("all settle together")

    def answer(self, question: Question) -> float | None:
        return self._shared.answer(replace(question, tenant_id=f"{self._name}-{question.tenant_id}"))


def can_share(scenario: Scenario) -> bool:
    """Whether it can be played beside others: it neither sets the clock nor asks for all tenants."""
    return not any(
        isinstance(step, Clock) or (isinstance(step, Expectation) and step.question.tenant_id is None)
        for step in scenario.steps
    )


def play_together(scenarios: Mapping[str, Scenario], subject: Subject, start_ms: int) -> dict[str, list[Difference]]:
    """Play all on one engine: making one, and closing its hours, costs the same for one scenario as for hundreds."""
    own = {name: Own(subject, name) for name in scenarios}
    playing = {name: play(scenario, own[name], start_ms) for name, scenario in scenarios.items()}
    found: dict[str, list[Difference]] = {}
    now_ms = start_ms
    while playing:
        for name in [*playing]:
            try:
                now_ms = max(now_ms, next(playing[name]))
            except StopIteration as end:
                found[name] = end.value
                del playing[name]
        for beacon in sorted((b for one in own.values() for b in one.fed), key=lambda beacon: beacon.received_at):
            subject.feed(beacon)
        for one in own.values():
            one.fed.clear()
        if playing:
            subject.settle(now_ms)
    return found
