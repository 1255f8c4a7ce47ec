"""`viewmeter simulate` and `viewmeter replay`: synthetic and recorded viewers for a running product."""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from viewmeter.cli import sending
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, result
from viewmeter.cli.progress import progress
from viewmeter.testing import beacons, simulator

MINUTE_MS: Final = 60_000


def simulate(
    *,
    to: str,
    key: str,
    seed: int,
    viewers: int,
    minutes: float = 10,
    speed: float = 1.0,
    fast: Flag = False,
    videos: int = 40,
    loss: float = 0.0,
    duplicate: float = 0.0,
    disorder_ms: int = 0,
    skew_ms: int = 0,
    truth: Path | None = None,
    json: Flag = False,
) -> None:
    """Send synthetic viewers over HTTP; the truth is written before any event is sent.

    Parameters
    ----------
    to
        Address of the product, e.g. http://127.0.0.1:8080.
    key
        An ingest key (pk_…).
    seed
        The same seed makes the same viewers.
    viewers
        How many viewers.
    minutes
        Length of the simulated time; it ends when the sending ends.
    speed
        How many times faster than real time.
    fast
        As fast as the server takes it.
    videos
        How many videos there are to watch.
    loss
        Share of events that get lost on the way (0..1).
    duplicate
        Share of beacons that arrive twice (0..1).
    disorder_ms
        How much later than it should a beacon may arrive.
    skew_ms
        How far the players' clocks may be wrong.
    truth
        File to write the truth to, per video and per metric (JSON).
    json
        Print JSON alone.
    """
    whole_ms = round(minutes * MINUTE_MS)
    if speed <= 0 or whole_ms <= 0 or viewers < 1:
        raise CommandError("--speed and --minutes are above 0, and --viewers is at least 1")
    now_ms = time.time_ns() // 1_000_000
    start_ms = now_ms - whole_ms if fast else now_ms - round(whole_ms * (1 - 1 / speed))
    simulation = simulator.Simulation(
        simulator.Settings(
            seed=seed, start_ms=start_ms, viewers=viewers, minutes=minutes, videos=videos,
            loss=loss, duplicate=duplicate, disorder_ms=disorder_ms, skew_ms=skew_ms,
        )
    )  # fmt: skip
    if truth is not None:
        _write(truth, simulation.truth())
    sent, took_s = _send(simulation, to, key, None if fast else speed)
    answer = {"seed": seed, "start_ms": start_ms, **_summary(sent, took_s)}
    result(answer, f"{sent.events} events in {sent.beacons} beacons, {took_s:.1f} s (seed {seed})", json)
    if not sent.ok:
        raise CommandError(f"not every beacon was taken ({sent.first_problem}): see that the product at {to} is ready")


def _send(simulation: simulator.Simulation, to: str, key: str, speed: float | None) -> tuple[sending.Sent, float]:
    """Send the viewers, at a speed or as fast as the server takes them; return what became of it, and the seconds."""
    begun, start_ms = time.monotonic(), simulation.settings.start_ms
    due = None if speed is None else lambda at_ms: begun + (at_ms - start_ms) / 1000 / speed
    with progress("simulating") as tell:
        sent = run_group(
            sending.send(
                beacons.beacons(simulation), to=to, key=key, due=due,
                progress=lambda so_far: tell(f"{so_far.events} events"),
            )
        )  # fmt: skip
    return sent, time.monotonic() - begun


def _summary(sent: sending.Sent, took_s: float) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(sent).items() if name not in ("statuses", "heard")},
        "statuses": {str(status): count for status, count in sorted(sent.statuses.items())},
        "seconds": took_s,
        "events_per_second": sent.events / took_s if took_s else None,
    }


def replay(
    file: Path,
    /,
    *files: Path,
    to: str,
    key: str,
    speed: float = 1.0,
    fast: Flag = False,
    shift_to_now: Flag = False,
    channel_id: str | None = None,
    json: Flag = False,
) -> None:
    """Post recorded beacons (JSON lines) again, byte for byte.

    Parameters
    ----------
    file
        A recording.
    files
        More recordings; several are replayed at once.
    to
        Address of the product, e.g. http://127.0.0.1:8080.
    key
        An ingest key (pk_…).
    speed
        How many times faster than recorded.
    fast
        Each beacon right after the answer to the one before.
    shift_to_now
        Move the times in the events so that the recording ends now.
    channel_id
        Channel of recordings that name none.
    json
        Print JSON alone.
    """
    from viewmeter.testing import replay as replaying

    try:
        with progress("replaying") as tell:
            summary = replaying.replay(
                (file, *files), to=to, key=key, now_ms=time.time_ns() // 1_000_000, speed=speed, fast=fast,
                shift_to_now=shift_to_now, channel_id=channel_id,
                progress=lambda done, of: tell(f"{done} of {of} beacons"),
            )  # fmt: skip
    except replaying.ReplayError as problem:
        raise CommandError(str(problem)) from None
    statuses = {str(status): count for status, count in sorted(summary.statuses.items())}
    answer = {**asdict(summary), "statuses": statuses}
    result(answer, f"{summary.posts} beacons of {summary.files} file(s): {statuses}", json)
    if not summary.ok:
        why = "; ".join(summary.problems[:1])
        raise CommandError(f"not every beacon was taken ({why}): see that the product at {to} is ready")


def run_group(work: Any) -> Any:
    """Run a coroutine; a command's error inside of its task group comes out as itself."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        found = group.subgroup(CommandError)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]  # type: ignore[assignment]
        if found is not None:
            raise found from None
        raise


def _write(path: Path, truth: dict[str, Any]) -> None:
    try:
        path.write_text(jsonlib.dumps(truth, ensure_ascii=False, indent=1), encoding="utf-8")
    except OSError as problem:
        raise CommandError(f"cannot write the truth to {path}: {problem.strerror}") from None
