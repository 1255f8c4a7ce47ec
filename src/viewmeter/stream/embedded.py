"""The stream jobs on one machine: a thread that moves micro-batches from the log to the store and the live figures.

In: the log. Out: one store transaction a micro-batch (rows of all rollups, and the commit that says how far the log was
applied), then the live figures. Promised: S1 to S4. The views' state is saved as a snapshot now and then; after a crash
the commits since the snapshot say how the log was cut, and the same cuts at the same clock give the same state
(decision 0002). Not done: a second process on the same folder (the supervisor's lock and the store's see to that).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import structlog

from viewmeter.eventlog.protocol import LogBatch, LogReader
from viewmeter.live.protocol import HOP_MS, PLAYS_MINUTES, LiveStore, LiveUpdate
from viewmeter.model.catalogue.measures import ADDITIVE
from viewmeter.model.increments import SAMPLE_MS
from viewmeter.model.ordering import WAIT_MS
from viewmeter.model.time import HOUR_MS, MINUTE_MS, SECOND_MS, floor_to
from viewmeter.olap.errors import StoreBrokenError
from viewmeter.olap.protocol import Commit, Scan, TimeSeriesStore, Visible
from viewmeter.stream import snapshot
from viewmeter.stream.core import GRACE_MS, Core
from viewmeter.stream.present import present
from viewmeter.stream.protocol import JOBS, StreamFigures
from viewmeter.stream.rows import rollup_rows
from viewmeter.stream.settings import StreamSettings

__all__ = ["EmbeddedStream", "StreamSettings"]

READER: Final = "stream"
EVERYTHING: Final = 1 << 62
DURABLE_WITHIN_MS: Final = 250
"""What was received longer ago is in the log, or its sender has had no answer yet."""
_RETRIES_S: Final = (0.1, 0.5, 1, 2, 5, 10, 20)

log = structlog.get_logger(__name__)


@dataclass
class _Clocks:
    """When what was done last; ms."""

    commit: int = 0
    sample: int = 0
    snapshot: int = 0
    compaction: int = 0
    trim: int = 0


class EmbeddedStream:
    """`StreamJobs` in this process."""

    def __init__(
        self,
        log: LogReader,
        store: TimeSeriesStore,
        live: LiveStore,
        state_dir: Path,
        clock: Callable[[], int],
        settings: StreamSettings | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._log, self._store, self._live, self._state_dir = log, store, live, state_dir
        self._clock, self._settings = clock, settings or StreamSettings()
        self._on_failure = on_failure
        self._core = Core()
        self._number = 0
        self._positions: dict[int, int] = {}
        self._watermark: int | None = None
        self._applied = 0
        self._saved = 0  # number of the commit the newest snapshot stands at
        self._last = _Clocks()
        self._changed = threading.Condition()
        self._flushes_asked = 0
        self._flushes_done = 0
        self._recovered = False
        self._stopping = False
        self._failure: BaseException | None = None
        self._saving = threading.Lock()
        self._thread: threading.Thread | None = None
        self._compaction: threading.Thread | None = None

    # Life

    def start(self) -> None:
        """Recover from the snapshot, the commits and the log; then begin."""
        self.recover()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Apply what is durable, save the state, return."""
        if self._thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None
        if self._compaction is not None:
            self._compaction.join()
        if self._failure is None:
            self.save_state()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when every event that is durable now is in every answer. Raises TimeoutError."""
        with self._changed:
            self._flushes_asked += 1
            mine = self._flushes_asked
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._flushes_done >= mine or self._over(), timeout_s)
            if self._failure is not None:
                raise RuntimeError("The stream jobs have failed; they start again with the engine.") from self._failure
            if not done or self._flushes_done < mine:
                raise TimeoutError(f"The stream jobs did not catch up within {timeout_s:g} s.")

    def watermarks(self) -> Mapping[str, int | None]:
        """Return up to when each job has applied everything. Raises RuntimeError before they have recovered."""
        if not self._recovered:
            raise RuntimeError("The stream jobs are recovering.")
        return dict.fromkeys(JOBS, self._watermark)

    def figures(self) -> StreamFigures:
        """Return where the jobs stand. Raises RuntimeError before they have recovered."""
        watermarks = self.watermarks()
        ends = self._log.ends()
        positions = self._positions
        return StreamFigures(
            watermark_ms=watermarks,
            lag_batches={p: max(0, end - positions.get(p, 0)) for p, end in ends.items()},
            applied_events=self._applied,
            waiting_events=self._core.waiting.num_rows,
            views=self._core.views,
        )

    def _over(self) -> bool:
        return self._failure is not None or (self._thread is None)

    # The loop

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    asked, stopping = self._flushes_asked, self._stopping
                settle = asked > self._flushes_done or stopping
                if settle:
                    self.settle()
                busy = settle or self.turn()
                if settle:
                    with self._changed:
                        self._flushes_done = max(self._flushes_done, asked)
                        self._changed.notify_all()
                if stopping:
                    return
                self._keep_house()
                if not busy:
                    with self._changed:
                        if self._flushes_asked == self._flushes_done and not self._stopping:
                            self._changed.wait(self._settings.poll_ms / 1000)
        except BaseException as problem:
            with self._changed:
                self._failure = problem
                self._changed.notify_all()
            log.exception("stream jobs failed")
            if self._on_failure is not None:
                self._on_failure(problem)

    def turn(self) -> bool:
        """Apply one micro-batch if there is a reason for one; return whether more is there already."""
        now = self._clock()
        if not _due(now, self._last.commit, self._settings.commit_every_ms):
            return False
        batches = self._log.read(self._positions, None, self._settings.max_batch_events)
        sample = (now - GRACE_MS) // SAMPLE_MS
        if batches or self._core.waiting.num_rows or sample != self._last.sample:
            self._last.sample = sample
            events = sum(batch.events.num_rows for batch in batches)
            more = bool(events >= self._settings.max_batch_events)
            self._batch(batches, now, None if more else now)
            return more
        self._watermark = now - DURABLE_WITHIN_MS
        self._live.publish(LiveUpdate(_NO_COUNTERS, None, now, self._watermark))
        self._last.commit = now
        return False

    def settle(self) -> None:
        """Apply all that is durable now, also what waits. For callers without the thread; `flush()` asks the thread."""
        looked = self._clock()
        ends = self._log.ends()
        while any(self._positions.get(p, 0) < end for p, end in ends.items()):
            self._batch(self._log.read(self._positions, ends, self._settings.max_batch_events), self._clock(), None)
        # A clock that is ahead frees what waits, and claims presence up to now.
        self._batch([], self._clock() + WAIT_MS, looked)

    def _batch(self, batches: list[LogBatch], now_ms: int, whole_at_ms: int | None) -> None:
        """Apply, commit, show. `whole_at_ms`: when the log was looked at, if all that it held is in; None: not all."""
        positions = dict(self._positions)
        received = now_ms
        for batch in batches:
            positions[batch.partition] = batch.offset
            if batch.events.num_rows:
                received = min(received, batch.events.column("received_at")[-1].as_py())
        rows, live = self._step(batches, now_ms)
        clock = self._clock()
        if whole_at_ms is not None:
            watermark = whole_at_ms - DURABLE_WITHIN_MS
        else:
            watermark = received if self._watermark is None else max(received, self._watermark)
        self._commit(rows, Commit(self._number + 1, now_ms, positions, watermark))
        self._watermark = watermark  # behind the commit: an answer in between has none of its rows
        self._number, self._positions = self._number + 1, positions
        self._live.publish(LiveUpdate(live, present(self._core, clock), clock, self._watermark))
        self._last.commit = clock

    def _step(self, batches: list[LogBatch], now_ms: int) -> tuple[dict[str, pa.Table], pa.Table]:
        deltas = self._core.step(_tables(batches), now_ms)
        self._applied += deltas.events
        rows = rollup_rows(self._core, deltas)
        self._core.forget(now_ms)
        return rows

    def _commit(self, rows: dict[str, pa.Table], commit: Commit) -> None:
        """Append, again and again while the disk is full: the state has moved on, so nothing may be left out."""
        for wait_s in (*_RETRIES_S, None):
            try:
                self._store.append(rows, commit)
            except StoreBrokenError:
                raise  # only a new engine helps, and it takes everything up where the last commit left it
            except Exception as problem:
                last = self._store.last_commit()
                if last is not None and last.number == commit.number:
                    return  # it was in after all
                if wait_s is None or self._stopping:
                    raise
                log.warning("commit failed, trying again", commit=commit.number, wait_s=wait_s, error=str(problem))
                time.sleep(wait_s)
            else:
                return

    def _keep_house(self) -> None:
        """Save the state, merge rows, drop old segments: each when its time has come."""
        now, settings, last = self._clock(), self._settings, self._last
        if _due(now, last.snapshot, settings.snapshot_every_s * SECOND_MS):
            last.snapshot = now
            if self._number > self._saved and self._saving.acquire(blocking=False):  # else a backup is under way
                try:
                    self._save_state()
                finally:
                    self._saving.release()
        if _due(now, last.compaction, settings.compact_every_s * SECOND_MS):
            last.compaction = now
            self._start_compaction(floor_to(now, MINUTE_MS) - MINUTE_MS)
        if _due(now, last.trim, HOUR_MS):
            last.trim = now
            self._log.trim(now - settings.keep_log_h * HOUR_MS)

    def _start_compaction(self, before_ms: int) -> None:
        """Merge rows beside the micro-batches, which must not wait for it; one merge at a time."""
        if self._compaction is not None and self._compaction.is_alive():
            return

        def compact() -> None:
            try:
                self._store.compact(before_ms)
            except Exception:
                log.exception("compaction failed; it is tried again in its time")

        self._compaction = threading.Thread(target=compact, name="stream-compact", daemon=True)
        self._compaction.start()

    # State

    def save_state(self) -> None:
        """Write a snapshot; the commits and the log before it are needed no more."""
        with self._saving:
            self._save_state()

    @contextlib.contextmanager
    def holding_state(self) -> Iterator[None]:
        """Save no newer snapshot while inside, so that the newest one and the commits behind it can be copied."""
        with self._saving:
            yield

    def _save_state(self) -> None:
        try:
            snapshot.save(self._core, self._number, self._positions, self._state_dir)
        except OSError as problem:  # the older snapshot and its commits still serve; try again in its time
            log.warning("state could not be saved", error=str(problem))
            return
        self._saved = self._number
        self._log.commit(READER, self._positions)
        self._store.forget_commits(self._number)

    def recover(self) -> None:
        """Take up the state where the last commit left it."""
        found = snapshot.load(self._state_dir)
        if found is not None:
            self._core, self._number, self._positions = found.core, found.number, dict(found.positions)
        self._saved = self._number
        replayed = 0
        commits = self._store.commits_after(self._number)
        if commits and commits[0].number > self._number + 1:
            self._read_again(commits[0])
            replayed += 1
            del commits[0]
        for commit in commits:
            batches = self._log.read(self._positions, commit.positions, EVERYTHING)
            self._core.step(_tables(batches), commit.at_ms)
            self._core.forget(commit.at_ms)
            self._number, self._positions = commit.number, {**self._positions, **commit.positions}
            replayed += 1
        now = self._clock()
        self._last = _Clocks(snapshot=now, compaction=now)
        self._show_last_hour(now)
        self._recovered = True
        log.info("stream jobs recovered", views=self._core.views, commits_replayed=replayed, commit=self._number)

    def _read_again(self, commit: Commit) -> None:
        """Make the state anew from all that the log still holds: the snapshot before this commit is gone.

        How the log was cut then is forgotten, so views that were late in those days may be remembered otherwise; the
        rows in the store stay as they are.
        """
        log.warning(
            "the saved state is gone (was the state folder deleted?): reading the log again from its beginning",
            commit=commit.number,
        )
        while batches := self._log.read(self._positions, commit.positions, self._settings.max_batch_events):
            last = max((b.events.column("received_at")[-1].as_py() for b in batches if b.events.num_rows), default=0)
            self._core.step(_tables(batches), last)
            self._core.forget(last)
            self._positions |= {b.partition: b.offset for b in batches}
        self._number, self._positions = commit.number, {**self._positions, **commit.positions}

    def _show_last_hour(self, now_ms: int) -> None:
        """Fill the live figures from the store: 5 minutes of everything, an hour of plays."""
        end = floor_to(now_ms, MINUTE_MS) + MINUTE_MS
        edges = tuple(range(end - (PLAYS_MINUTES + 1) * MINUTE_MS, end + 1, MINUTE_MS))
        names = tuple(measure.name for measure in ADDITIVE)
        dimensions = ("channel_id", "video_id", "is_bot")
        for tenant in self._tenants():
            found = self._store.scan(Scan("video", names, edges, Visible(tenant), dimensions))
            if found.num_rows:
                times = pa.array([edges[bucket] for bucket in found["bucket"].to_pylist()], pa.int64())
                tenants = pa.array([tenant] * found.num_rows, pa.string())
                counters = found.drop_columns(["bucket"]).append_column("time_ms", times)
                counters = counters.append_column("tenant_id", tenants)
                self._live.publish(LiveUpdate(counters, None, now_ms, None))
        self._live.publish(LiveUpdate(_NO_COUNTERS, present(self._core, now_ms), now_ms, None))

    def _tenants(self) -> list[str]:
        groups = self._core.groups["platform"]
        return sorted(set(groups.table()["tenant_id"].to_pylist()))


def _due(now_ms: int, last_ms: int, every_ms: int) -> bool:
    """True once the time is over, and after the clock was put back: otherwise that would be a standstill as long."""
    return not 0 <= now_ms - last_ms < every_ms


def _tables(batches: list[LogBatch]) -> list[pa.Table]:
    """Return the events in the one order that every repetition of these batches has."""
    return [pa.Table.from_batches([b.events]) for b in sorted(batches, key=lambda b: (b.partition, b.offset))]


_NO_COUNTERS: Final = pa.table(
    {
        "time_ms": pa.array([], pa.int64()),
        "tenant_id": pa.array([], pa.string()),
        "channel_id": pa.array([], pa.string()),
        "video_id": pa.array([], pa.string()),
        "is_bot": pa.array([], pa.bool_()),
    }
)
assert HOP_MS == SAMPLE_MS, "live windows roll as samples are taken"
assert WAIT_MS == GRACE_MS, "one step of the clock settles both"
