"""`viewmeter bench`: the project's own benchmarks. Each measures its baseline in the same run and states the ratio."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from viewmeter.bench import BENCHES
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, note, result, table

Name = Literal["ingest", "speed", "freshness", "idle", "query", "archive", "batch", "all"]


def bench(
    name: Name,
    /,
    *,
    seconds: float | None = None,
    events: int | None = None,
    rows: int | None = None,
    keep: Path | None = None,
    against: Literal["nginx"] | None = None,
    json: Flag = False,
) -> None:
    """Run a benchmark, or all of them.

    Parameters
    ----------
    name
        ingest, speed, freshness, idle, query, archive, batch or all.
    seconds
        How long to measure (default: each benchmark's own, some seconds).
    events
        batch only: how many events the hour holds (the bar is stated for 20 million).
    rows
        query only: how many rows of rollups the kept history has (the bar is stated for 100 million).
    keep
        query only: the folder that the history is kept in (default: the user's cache folder).
    against
        ingest only: also measure nginx, which writes the same bodies to files.
    json
        Print JSON alone.
    """
    if against is not None and name != "ingest":
        raise CommandError(f"--against is for `bench ingest`, not for {name}")
    if events is not None and (name != "batch" or events < 1):
        raise CommandError(f"--events is for `bench batch`, and at least 1; not {events} for {name}")
    if (rows is not None or keep is not None) and name != "query":
        raise CommandError(f"--rows and --keep are for `bench query`, not for {name}")
    if rows is not None and rows < 1:
        raise CommandError(f"--rows is at least 1, not {rows}")
    asked = {"seconds": seconds, "events": events, "rows": rows, "keep": keep, "against": against}
    options: dict[str, Any] = {key: given for key, given in asked.items() if given}
    results: dict[str, Any] = {}
    failed: list[str] = []
    for one in BENCHES if name == "all" else (name,):
        note(f"bench {one} …")
        try:
            run = importlib.import_module(f"viewmeter.bench.{one}").run
        except ImportError as problem:
            raise CommandError(f"bench {one} cannot run here: {problem}") from None
        try:
            results[one] = run(**options)
        except Exception as problem:  # noqa: BLE001 - the others still run, and the exit code says it
            failed.append(f"{one} ({type(problem).__name__}: {problem})")
    lines = [(one, key, value) for one, found in results.items() for key, value in _flat(found)]
    result(results if name == "all" else results.get(name, {}), table(("BENCH", "FIGURE", "VALUE"), lines), json)
    if failed:
        raise CommandError("failed: " + "; ".join(failed))


def _flat(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((prefix + key, f"{value:,.4g}" if isinstance(value, float) else str(value)))
    return lines
