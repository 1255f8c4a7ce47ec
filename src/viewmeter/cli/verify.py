"""`viewmeter verify`: does the store say what the raw events say?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from viewmeter import wiring
from viewmeter.archive.protocol import ArchiveDamagedError
from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, result, table
from viewmeter.cli.progress import progress
from viewmeter.cli.raw import archive
from viewmeter.model.time import HOUR_MS, rfc3339
from viewmeter.supervisor import lock

if TYPE_CHECKING:
    from viewmeter.upkeep.verify import Findings

SHOWN: Final = 50
"""Differences that a person is shown; --json has up to a thousand."""


def verify(*, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """Compute every closed hour anew from raw events, with the oracle; exit 0 only when no sum differs.

    For a product that is stopped. Of one that runs, verify a copy: `viewmeter backup`, `viewmeter restore` into
    another folder, and verify that. Takes about a minute for a million events.

    Parameters
    ----------
    data
        The data folder.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    from viewmeter.batch.settings import BatchSettings
    from viewmeter.upkeep.verify import verify as compare

    loaded = folder.settings(data, config)
    if not (data / "store.duckdb").exists():
        raise CommandError(f"{data} holds no store: give the folder of a product that has run with --data")
    with _alone(data), archive(data, loaded) as raw, contextlib.ExitStack() as opened, progress("verifying") as tell:
        store = wiring.store(loaded.config, data)
        opened.callback(store.close)
        remember_ms = loaded.config.of(BatchSettings).remember_h * HOUR_MS
        try:
            found = compare(raw.reader(), store, remember_ms, lambda done, of: tell(f"{done} of {of} hours"))
        except ArchiveDamagedError as problem:
            raise CommandError(str(problem)) from None
    result(_told(found), _text(found), json)
    if found.differing:
        raise CommandError(f"{found.differing} sums are not what the raw events say: see the list, and report it")


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    try:
        held = lock.take(data, wait_s=0)
    except lock.DataFolderInUseError:
        raise CommandError(
            f"the product runs on {data}: stop it first, or make a copy with `viewmeter backup` and `viewmeter "
            "restore` and verify that"
        ) from None
    try:
        yield
    finally:
        os.close(held)


def _told(found: Findings) -> dict[str, Any]:
    return {
        "equal": not found.differing,
        "hours": found.hours,
        "events": found.events,
        "sums": found.compared,
        "differing": found.differing,
        "differences": [
            {"hour": rfc3339(one.hour_ms), **{k: v for k, v in asdict(one).items() if k != "hour_ms"}}
            for one in found.differences
        ],
        "not_checked": {
            "kept": found.kept,
            "waiting": [rfc3339(hour) for hour in found.waiting],
            "gone": found.gone,
        },
    }


def _text(found: Findings) -> str:
    lines = [f"{found.hours} hours, {found.events} raw events, {found.compared} sums: {found.differing} differ"]
    if found.waiting:
        lines.append(
            f"{len(found.waiting)} hours from {rfc3339(found.waiting[0])} on wait for a batch run and were not "
            "checked: they can be after the product ran for some minutes"
        )
    if found.gone:
        lines.append(f"{found.gone} hours are too old to check: their raw events or hour rows are not kept any more")
    if found.kept:
        lines.append(f"{found.kept} hours have rows that come from no events (a demo's past)")
    if found.differences:
        rows = [
            (rfc3339(one.hour_ms), one.rollup, " ".join(one.keys.values()), one.measure, one.stored, one.expected)
            for one in found.differences[:SHOWN]
        ]
        lines.append(table(("HOUR", "ROLLUP", "KEYS", "MEASURE", "STORED", "RAW EVENTS"), rows))
    if found.differing > SHOWN:
        lines.append(f"… and {found.differing - SHOWN} more; --json lists up to a thousand")
    return "\n".join(lines)
