"""The batch jobs on one machine: hours in order, each in a child process, each closed by one store transaction.

In: the archive (what there is to compute), the store (what is closed and what is stale), the carries (what an hour left
to the next). Out: closed hours, built periods, a history of runs. Promised: B1 to B6. An hour's run is: archive what is
durable, compute into `out/`, `put_hour`, install the carry; each step is done or undone whole, and the next start
settles what a crash left between two. Not done: computing (`child.py`, `hour.py`), a second process on the same folder.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from viewmeter.archive.protocol import Archive, ArchiveDamagedError, ArchiveUnavailableError
from viewmeter.batch import files
from viewmeter.batch.child import Request, Runner, run_in_child
from viewmeter.batch.due import Due, due_hours
from viewmeter.batch.protocol import BatchFailedError, BatchFigures, HourBusyError, HourGoneError, HourNotOverError
from viewmeter.batch.settings import BatchSettings
from viewmeter.model.calendar import Period, period_of, zone_of
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Interval, floor_to, rfc3339
from viewmeter.olap.protocol import HourDroppedError, HourKeptError, HourRun, HourTouchedError, JobRun, TimeSeriesStore

__all__ = ["BatchSettings", "EmbeddedBatch"]

_LATEST_MS: Final = 1 << 53
_JOB_OF: Final[dict[Period, str]] = {"day": "daily", "week": "weekly", "month": "monthly"}
_TRIES: Final = 3
"""Of a run that was asked for and finds its open hour touched each time."""
_REST_MAX_MS: Final = 5 * MINUTE_MS
"""An open hour that is touched in each run is tried again after 10, 20, 40 s … and at last this often (decision 88)."""
_PROBLEMS: Final = (BatchFailedError, ArchiveDamagedError, ArchiveUnavailableError, OSError, TimeoutError)

log = structlog.get_logger(__name__)


class EmbeddedBatch:
    """`BatchJobs` in this process, with a thread that looks for work."""

    def __init__(
        self,
        archive: Archive,
        archive_folder: Path,
        store: TimeSeriesStore,
        folder: Path,
        clock: Callable[[], int],
        settings: BatchSettings | None = None,
        zones: Callable[[], Mapping[str, str]] = dict,
        runner: Runner = run_in_child,
    ) -> None:
        self._archive, self._archive_folder, self._store = archive, archive_folder, store
        self._clock, self._settings = clock, settings or BatchSettings()
        self._zones, self._runner = zones, runner
        self._carries = files.Carries(folder)
        self._working = threading.RLock()  # one run at a time
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._ran_at: dict[int, int] = {}  # hour -> clock of its last run
        self._touched: dict[int, int] = {}  # open hour -> runs in a row that events came into
        self._marked: set[int] = set()  # hours that the last run made stale
        self._flushes: list[Future[None]] = []  # who waits
        self._figures = BatchFigures(None)
        self._expired_at = 0
        self._settled = False

    # Life

    def start(self) -> None:
        """Settle what a crash left half done; begin to look for hours."""
        with self._working:
            self._settle()
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the run at hand (it is done again after the next start) and the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for done in self._flushes:
            done.set_exception(BatchFailedError("the batch jobs end"))

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._serve_flushes()
                self.turn()
            except Exception as problem:
                self._figures = replace(self._figures, running=None, problem=str(problem))
                log.exception("batch jobs failed; they are tried again")
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or bool(self._flushes), self._settings.look_every_s)

    def _settle(self) -> None:
        """Install or drop results of runs that a crash cut short."""
        if self._settled:
            return
        self._carries.settle()
        for result in self._carries.finished():
            about = files.about_of(result)
            closed = self._store.closed(Interval(about.hour_ms, about.hour_ms + HOUR_MS))
            if closed and closed[0].at_ms == about.at_ms:
                self._carries.install(result, kept=closed[0].kept)  # its rows are in; the carry was not installed yet
            else:
                shutil.rmtree(result, ignore_errors=True)
        self._settled = True

    # Work

    def turn(self) -> None:
        """Run every hour that is due, oldest first; then build periods and drop what is old."""
        with self._working:
            self._settle()
            now = self._clock()
            self._store.set_zones(self._zones(), now)
            closed_until = floor_to(now - self._settings.close_after_s * SECOND_MS, HOUR_MS)
            if self._run_due(closed_until):
                self._build(closed_until)
            self._keep_house(now)

    def _run_due(self, before_ms: int) -> bool:
        """Run what is due, oldest first; return False where an hour failed: those after it stand on it."""
        while not self._stopping:
            self._serve_flushes()  # who waits does not wait for a whole catch-up
            due = self._due(before_ms)
            self._tell(due, before_ms)
            ready = [hour for hour in (*due.first, *due.again) if self._rested(hour, again=hour in due.again)]
            if not ready:
                break
            try:
                self._hour_or_failed(min(ready))
            except HourBusyError:
                continue  # those after it stand on what it hands on, not on its being closed
            except BatchFailedError:
                return False
        return True

    def _due(self, before_ms: int) -> Due:
        archived = self._archive.hours()
        # Years of closed hours have no raw events any more.
        reach = Interval(min(archived, default=_LATEST_MS), _LATEST_MS)
        return due_hours(
            before_ms=before_ms,
            archived=archived,
            closed={hour.hour_ms for hour in self._store.closed(reach)} if archived else frozenset(),
            stale=self._store.stale_hours(),
            with_rows=self._store.hours_with_rows(),
            carries=self._carries.hours(),
        )

    def _rested(self, hour_ms: int, *, again: bool) -> bool:
        rest_ms = self._settings.rerun_after_s * SECOND_MS if again else 0
        if touched := self._touched.get(hour_ms, 0):
            look_ms = int(self._settings.look_every_s * SECOND_MS)
            rest_ms = max(rest_ms, min(look_ms << min(touched, 16), _REST_MAX_MS))
        # A clock that was put back must not keep an hour waiting.
        return not 0 <= self._clock() - self._ran_at.get(hour_ms, 0) < rest_ms

    def _hour(self, hour_ms: int) -> JobRun:
        """Compute an hour and close it. The hours before it have run."""
        began = self._clock()
        self._ran_at[hour_ms] = began
        self._figures = replace(self._figures, running=f"hour {rfc3339(hour_ms)}")
        last = self._store.last_commit()
        self._archive.flush()
        version = self._archive.hours().get(hour_ms, 0)
        about = files.About(hour_ms, began, version, last.number if last else 0)
        out = self._carries.out / str(hour_ms)
        before = self._carries.path(hour_ms - HOUR_MS)
        request = Request(
            archive=str(self._archive_folder),
            out=str(out),
            about=about,
            opened=str(before) if before else None,
            ended=[
                str(file) for file in self._carries.ended_before(hour_ms, hour_ms - self._settings.remember_h * HOUR_MS)
            ],
            part_events=self._settings.part_events,
            processes=self._settings.processes,
        )
        self._runner(request, lambda: self._stopping, float(self._settings.run_timeout_s))
        return self._close_hour(out, began)

    def _close_hour(self, out: Path, began: int) -> JobRun:
        about = files.about_of(out)
        hour_ms, counts = about.hour_ms, about.counts
        older = self._carries.hours().get(hour_ms)
        reran = bool(self._store.closed(Interval(hour_ms, hour_ms + HOUR_MS)))
        rows, viewers = files.rows_of(out)
        marks = []
        if older is not None and older.handover != about.handover:
            marks.append(hour_ms + HOUR_MS)
        previous = self._carries.hours().get(hour_ms - HOUR_MS)
        if previous is not None and counts.fills_received_at >= previous.at_ms:
            marks.append(hour_ms - HOUR_MS)  # it took a stretch of `seq` for lost, and later ones for its own
        self._marked.update(marks)
        run = HourRun(about.archive_version, about.seen_commit, about.at_ms, tuple(marks))
        refusal = ""
        try:
            self._store.put_hour(hour_ms, rows, viewers, run)
        except HourTouchedError as touched:
            del rows, viewers  # mapped into memory; the files go
            self._store.mark_stale(marks)  # the next run is compared with this carry
            self._carries.install(out)  # what the hour behind it can start from meanwhile
            self._touched[hour_ms] = self._touched.get(hour_ms, 0) + 1
            self._ran_at[hour_ms] = self._clock()  # it rests from here on
            log.info("an hour stays open", hour=rfc3339(hour_ms), tries=self._touched[hour_ms], reason=str(touched))
            raise HourBusyError(
                f"events of {rfc3339(hour_ms)} came while it was computed: it stays open, real time answers for it, "
                "and it is tried again"
            ) from touched
        except (HourKeptError, HourDroppedError) as refused:
            # Its rows stay; the next hour needs the carry all the same.
            refusal = str(refused)
            log.warning("an hour keeps the rows that it has", hour=rfc3339(hour_ms), reason=refusal)
        written = sum(table.num_rows for table in rows.values())
        del rows, viewers  # mapped into memory; the files go
        self._carries.install(out, kept=bool(refusal))
        self._touched.pop(hour_ms, None)
        ended = self._clock()
        details: dict[str, Any] = {
            "events": counts.events,
            "duplicates": counts.duplicates,
            "late_events": counts.late,
            "open_views": counts.open_views,
            "reran": reran,
            "kept": refusal,
        }
        if not refusal:
            details |= _differences(self._store.compare(hour_ms), counts.late)
        seconds = max(1, ended - began) / SECOND_MS
        self._figures = replace(
            self._figures, running=None, problem=None, events_per_s=counts.events / seconds if counts.events else None
        )
        done = JobRun("hourly", Interval(hour_ms, hour_ms + HOUR_MS), began, ended, "done", written, details)
        log.info("hour closed", hour=rfc3339(hour_ms), rows=written, events=counts.events, took_ms=ended - began)
        return replace(done, number=self._store.note_run(done))

    def _note_failure(self, hour_ms: int, problem: Exception) -> None:
        now = self._clock()
        self._figures = replace(self._figures, running=None, problem=str(problem))
        log.error("batch run failed", hour=rfc3339(hour_ms), error=str(problem))
        newest = self._store.runs(1, None, "hourly")
        interval = Interval(hour_ms, hour_ms + HOUR_MS)
        if newest and newest[0].state == "failed" and newest[0].interval == interval:
            return  # tried again every few seconds; once in the history is enough
        self._store.note_run(JobRun("hourly", interval, now, now, "failed", 0, {"error": str(problem)}))

    def _build(self, before_ms: int) -> None:
        for period in self._store.due(before_ms):
            if self._stopping:
                return
            began = self._clock()
            rows = self._store.build(period.kind, period.start_ms, period.zone)
            end = period_of(period.start_ms, period.kind, zone_of(period.zone)).end_ms
            interval = Interval(period.start_ms, end)
            details = {"zone": period.zone}
            job = _JOB_OF[period.kind]
            self._store.note_run(JobRun(job, interval, began, self._clock(), "done", rows, details))

    def _keep_house(self, now_ms: int) -> None:
        if now_ms - self._expired_at < HOUR_MS:
            return
        self._expired_at = now_ms
        dropped = {table: rows for table, rows in self._store.expire(now_ms).items() if rows}
        archived = self._archive.hours()
        if archived:
            self._carries.drop_before(min(archived) - (self._settings.remember_h + 1) * HOUR_MS)
        if dropped:
            log.info("old rows dropped", **dropped)

    def _tell(self, due: Due, closed_until: int) -> None:
        until = min((*due.first, *due.again), default=closed_until)
        self._figures = replace(
            self._figures, closed_until_ms=until, due=len(due.first), stale=len(due.again), problem=None
        )

    # On demand

    def run_hour(self, hour_ms: int) -> JobRun:
        """Run an hour now, and first what it builds on."""
        if hour_ms % HOUR_MS:
            raise ValueError(f"{rfc3339(hour_ms)} is no start of an hour")
        interval = Interval(hour_ms, hour_ms + HOUR_MS)
        with self._working:
            self._settle()
            if interval.end_ms > self._clock():
                raise HourNotOverError(interval, interval.end_ms)
            self._archive.flush()
            self._refuse_gone(hour_ms)
            for earlier in self._before(hour_ms):
                with suppress(HourBusyError):
                    self._hour_or_failed(earlier, tries=_TRIES)
            return self._hour_or_failed(hour_ms, kept_matters=True, tries=_TRIES)

    def run_day(self, day_ms: int) -> JobRun:
        """Run every hour of a UTC day that needs it, and build the periods that are complete then."""
        if day_ms % DAY_MS:
            raise ValueError(f"{rfc3339(day_ms)} is no start of a day")
        interval = Interval(day_ms, day_ms + DAY_MS)
        with self._working:
            self._settle()
            began = self._clock()
            if interval.end_ms > began:
                raise HourNotOverError(interval, interval.end_ms)
            self._archive.flush()
            self._store.set_zones(self._zones(), began)
            rows = 0
            for hour in self._before(interval.end_ms):
                rows += self._hour_or_failed(hour, tries=_TRIES).rows
            self._build(interval.end_ms)
            ended = self._clock()
            done = JobRun("daily", interval, began, ended, "done", rows, {"zone": "UTC", "asked": True})
            return replace(done, number=self._store.note_run(done))

    def _before(self, hour_ms: int) -> list[int]:
        """Return the hours before that must run, oldest first."""
        due = self._due(hour_ms)
        return sorted({*due.first, *due.again})

    def _hour_or_failed(self, hour_ms: int, *, kept_matters: bool = False, tries: int = 1) -> JobRun:
        try:
            run = self._hour(hour_ms)
        except HourBusyError:
            self._figures = replace(self._figures, running=None)
            if tries <= 1:
                raise
            return self._hour_or_failed(hour_ms, kept_matters=kept_matters, tries=tries - 1)
        except _PROBLEMS as problem:
            self._note_failure(hour_ms, problem)
            if isinstance(problem, BatchFailedError):
                raise
            raise BatchFailedError(str(problem)) from problem
        if kept_matters and run.details.get("kept"):
            raise HourKeptError(run.details["kept"])
        return run

    def _refuse_gone(self, hour_ms: int) -> None:
        archived = self._archive.hours()
        if hour_ms in archived or not archived or hour_ms > min(archived):
            return
        if self._store.closed(Interval(hour_ms, hour_ms + HOUR_MS)):
            raise HourGoneError(f"the raw events of {rfc3339(hour_ms)} are archived no more: its rows stay as they are")

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when every closed hour, and every imported one, holds the events that are durable now.

        The thread does the work, and goes on with it where this gives up.
        """
        if self._thread is None:
            self._catch_up()
            return
        done: Future[None] = Future()
        with self._wake:
            self._flushes.append(done)
            self._wake.notify_all()
        try:
            done.result(timeout_s)
        except TimeoutError:
            raise TimeoutError(self._left(timeout_s)) from None

    def _serve_flushes(self) -> None:
        with self._wake:
            waiting, self._flushes = self._flushes, []
        if not waiting:
            return
        try:
            self._catch_up()
        except BaseException as problem:
            for done in waiting:
                done.set_exception(problem)
            if not isinstance(problem, BatchFailedError):
                raise
        else:
            for done in waiting:
                done.set_result(None)

    def _catch_up(self) -> None:
        """Run each hour that changed. Once: what comes while it runs came after the call."""
        with self._working:
            self._settle()
            if not self._changed_hours():
                return
            self._archive.flush()
            ran: set[int] = set()
            while hours := [hour for hour in self._changed_hours() if hour not in ran]:
                if self._stopping:
                    raise BatchFailedError("the batch jobs end")
                self._marked.clear()
                with suppress(HourBusyError):  # it is open: real time answers
                    self._hour_or_failed(hours[0])
                ran = (ran | {hours[0]}) - self._marked

    def _left(self, after_s: float) -> str:
        hours, running = self._changed_hours(), self._figures.running
        those = (
            f"{len(hours)} closed hours that changed still wait for another run" if hours else "no closed hour waits"
        )
        first = f", the first of them {rfc3339(hours[0])}" if hours else ""
        return f"{those} after {after_s:g} s{first}" + (f"; at work: {running}" if running else "")

    def _changed_hours(self) -> list[int]:
        """Return closed hours that changed, and hours that were imported: what `flush` waits for."""
        now = self._clock()
        due = self._due(floor_to(now, HOUR_MS))
        imported = self._archive.hours().keys() - {*self._store.hours_with_rows()}
        return sorted({*due.again, *(hour for hour in due.first if hour in imported)})

    # Telling

    def stale(self) -> list[int]:
        """Return the closed hours that must run again, in order."""
        return sorted(self._store.stale_hours())

    def figures(self) -> BatchFigures:
        """Return where the jobs stand."""
        return self._figures

    def history(self, limit: int = 100, before: int | None = None, job: str | None = None) -> Sequence[JobRun]:
        """Return the newest runs first."""
        return self._store.runs(limit, before, job)

    def check(self) -> str | None:
        """Return why hours are not closed at present; None: they are."""
        return self._figures.problem


def _differences(compared: Mapping[str, tuple[int, int]], late: int) -> dict[str, Any]:
    """Return what the speed layer had said otherwise, and what may have caused it."""
    found = {name: {"speed": speed, "batch": batch} for name, (speed, batch) in compared.items() if speed != batch}
    if not found:
        return {"differences": {}, "compared": len(compared)}
    cause = (
        f"{late} events arrived more than a second after a later one of their view"
        if late
        else "events that the speed layer met in another order, or ends that it had not noticed yet"
    )
    return {"differences": found, "compared": len(compared), "cause": cause}
