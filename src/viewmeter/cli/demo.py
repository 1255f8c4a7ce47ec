"""`viewmeter demo`: the product on a throw-away folder, with a past and with live viewers.

This process prepares everything, starts the viewers (`viewers.py`, a child) and then becomes the supervisor like
`up`. The child follows the supervisor by a pipe: when the supervisor ends, however it does, the viewers leave and a
throw-away folder is removed.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from viewmeter import config as settings
from viewmeter import wiring
from viewmeter.cli import access, folder, history
from viewmeter.cli.access import Flag
from viewmeter.cli.crowd import VIDEOS, Crowd, people, write_recent
from viewmeter.cli.output import CommandError, note, say
from viewmeter.cli.up import start
from viewmeter.cli.viewers import Task
from viewmeter.metadata.keys import Tenant
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, floor_to
from viewmeter.supervisor.port import PortError, reserve
from viewmeter.supervisor.settings import ServerSettings
from viewmeter.testing.history import History, Typical, viewers_at
from viewmeter.testing.simulator import Plan, facts

TENANT: Final = "demo"
MAX_DAYS: Final = 1_100
RECENT_STEP_MS: Final = 5 * MINUTE_MS
"""The grain of the last day, as the dashboard shows it."""
DAYS_BY_HOUR: Final = 8
EARLY_STEP_MS: Final = 4 * HOUR_MS
EARLY_DAYS_AT_ONCE: Final = 11
HOURLY_DAYS_AT_ONCE: Final = 4
VIEW_MS: Final = 200_000
"""How long a view of the crowd is, about."""


def demo(
    *,
    port: int | None = None,
    host: str | None = None,
    viewers: int = 300,
    days: int = 30,
    data: Path | None = None,
    seed: int = 1,
    workers: int | None = None,
    no_open: Flag = False,
) -> None:
    """Run the product with a past and live simulated viewers; an incident begins after a minute.

    Parameters
    ----------
    port
        Port to listen on (default 8080; 0 = a free one).
    host
        Address to listen on (default 127.0.0.1).
    viewers
        How many viewers watch at the same time, about.
    days
        Length of the past.
    data
        Keep everything in this new folder; without it the folder is removed at the end.
    seed
        The same seed makes the same past and the same viewers.
    workers
        Collector processes.
    no_open
        Do not open a browser.
    """
    if viewers < 1 or not 0 <= days <= MAX_DAYS:
        raise CommandError(f"--viewers is at least 1, and --days 0 to {MAX_DAYS}")
    place = data or Path(tempfile.mkdtemp(prefix="viewmeter-demo-"))
    folder.make(place)
    loaded = folder.settings(place, None)
    loaded = settings.override(loaded, "server", "demo", host=host, port=port, workers=workers)
    if taken := _port_problem(loaded.config.of(ServerSettings)):
        if data is None:
            shutil.rmtree(place)
        raise CommandError(taken)
    # The simulated viewers live all over the world, which their addresses tell in X-Forwarded-For.
    loaded = settings.override(loaded, "collector", "demo", trusted_proxies=("127.0.0.0/8", "::1/128"))
    with folder.open_metadata(place, loaded, made=True) as metadata:
        if metadata.has_keys():
            raise CommandError(f"{place} is in use already: give the demo a new folder, or run `viewmeter up` on it")
        made = metadata.init(TENANT)
        token = metadata.create_signin(made.tenant)
    crowd = Crowd(seed=seed, viewers=viewers, opened_ms=time.time_ns() // 1_000_000)
    _make_past(place, loaded, made.tenant, days, crowd)
    say(access.keys_text(made.ingest_key, made.secret_key))
    _start_viewers(
        Task(
            data=str(place.absolute()),
            key=made.ingest_key,
            signin_token=token,
            crowd=crowd,
            remove=data is None,
            open_browser=not no_open and sys.stdout.isatty(),
        )
    )
    start(place, loaded)


def _port_problem(server: ServerSettings) -> str | None:
    """Say now what `up` would say after the past has been made."""
    try:
        reserve(server.host, server.port).close()
    except PortError as problem:
        return str(problem)
    return None


def _make_past(data: Path, loaded: settings.Loaded, tenant: Tenant, days: int, crowd: Crowd) -> None:
    """Make the past: days of rollups by the hour, a day by 5 minutes, and the last two hours event by event."""
    if not days:
        write_recent(data, tenant, crowd, floor_to(crowd.opened_ms - 10 * MINUTE_MS, MINUTE_MS))
        return
    note(f"making {days} days of the past …")
    end_ms = floor_to(crowd.opened_ms - 2 * HOUR_MS, HOUR_MS)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        recent = pool.submit(write_recent, data, tenant, crowd, end_ms)
        past = dataclasses.replace(_history(crowd, days, end_ms), people=people(crowd, tenant))
        _put_past(data, loaded, past, _sample(crowd), crowd.opened_ms)
        recent.result()


def _history(crowd: Crowd, days: int, end_ms: int) -> History:
    """Return the history at whose end as many watch as in the crowd that follows it."""
    start_ms = end_ms - days * DAY_MS
    typical = tuple(_typical(plans) for plans in crowd.watched.values())
    unscaled = History(crowd.seed, start_ms, days, VIDEOS, peak_views=1_000, tenant_id=TENANT, typical=typical)
    scale = crowd.viewers / viewers_at(unscaled, end_ms)
    return dataclasses.replace(unscaled, peak_views=max(1, round(scale * unscaled.peak_views)))


def _typical(plans: Sequence[Plan]) -> Typical:
    told = [facts(plan) for plan in plans]
    means = (sum(one[name] for one in told) / len(told) for name in ("played_ms", "completes", "engaged_views"))
    return Typical(*means)


def _sample(crowd: Crowd) -> history.Sample:
    watched = crowd.watched
    lengths = {video.video_id: video.duration_ms for video in crowd.videos}
    return history.Sample(
        lengths, {v: np.array([facts(p)["played_ms"] for p in plans]) for v, plans in watched.items()}
    )


def _put_past(data: Path, loaded: settings.Loaded, past: History, sample: history.Sample, now_ms: int) -> None:
    """Close the hours of the past, as if batch jobs had run; its last hour stays open.

    In that one the first events of the views that go on are applied, which no closed hour would show. The days are
    built by the engine's own jobs once it runs, while hours answer for them; but those whose hours are too old to be
    read are built here.
    """
    store = wiring.store(loaded.config, data)
    try:
        store.expire(now_ms)  # so that nothing is put where it would be dropped again
        for piece in _ahead(_pieces(past, sample)):
            closed, rest = piece.split(min(piece.interval.end_ms, past.end_ms - HOUR_MS))
            store.put_history(closed.interval, closed.rows, closed.viewers, now_ms)
            store.load(rest.speed_rows())
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{(piece.interval.end_ms - past.start_ms) // DAY_MS} of {past.days} days")
        with store.snapshot() as snapshot:
            readable_ms = snapshot.coverage("UTC").hour_from_ms
        for period in store.due(past.end_ms):
            if period.kind == "day" and period.start_ms < readable_ms:
                store.build(period.kind, period.start_ms, period.zone)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + " " * 40 + "\r")
    finally:
        store.close()


def _pieces(past: History, sample: history.Sample) -> Iterator[history.Day]:
    """Yield the past: rows by 4 hours, in the last week by the hour, on the last day by 5 minutes.

    A day by the hour has as many rows as four of the others, and charts of a month are by the day. Days are put several
    at a time, because planning the statements of one put takes longer than the rows of a day.
    """
    last = past.days - 1
    week = max(0, past.days - DAYS_BY_HOUR)
    early = itertools.islice(history.days(dataclasses.replace(past, step_ms=EARLY_STEP_MS), sample), week)
    by_hour = itertools.islice(history.days(dataclasses.replace(past, first_day=week), sample), last - week)
    for days, at_once in ((early, EARLY_DAYS_AT_ONCE), (by_hour, HOURLY_DAYS_AT_ONCE)):
        while some := [*itertools.islice(days, at_once)]:
            yield history.Day.joined(some)
    recent = dataclasses.replace(past, first_day=last, step_ms=RECENT_STEP_MS, fade_ms=VIEW_MS)
    yield from history.days(recent, sample)


def _ahead(pieces: Iterator[history.Day]) -> Iterator[history.Day]:
    """Yield the pieces, the next one being made while one is put: the store releases the GIL."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = maker.submit(next, pieces, None)
            yield piece


def _start_viewers(task: Task) -> None:
    """Start the viewers; the pipe to them stays open in this process, also after it became the supervisor."""
    process = subprocess.Popen(
        [sys.executable, "-m", "viewmeter.cli.viewers"], stdin=subprocess.PIPE, stdout=None, stderr=None
    )
    assert process.stdin is not None  # asked for above
    handle = os.dup(process.stdin.fileno())
    os.set_inheritable(handle, True)
    os.write(handle, msgspec.json.encode(task) + b"\n")
    process.returncode = 0  # it is no longer this object's business: nobody waits for it here
