"""`viewmeter import` and `export`: raw events into a data folder and out of it, while the product runs or not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from viewmeter import config as settings
from viewmeter import wiring
from viewmeter.archive.protocol import Archive, ArchiveDamagedError, ArchiveUnavailableError
from viewmeter.cli import folder, whose
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, note, result
from viewmeter.cli.progress import progress
from viewmeter.model.time import Interval, rfc3339, to_ms

if TYPE_CHECKING:
    from viewmeter.archive.incoming import Owners, Rejected

SHOWN: Final = 20
"""Refused rows that are shown; --rejected keeps all of them."""


def import_(
    file: Path,
    /,
    *files: Path,
    data: Path = folder.DEFAULT_DATA,
    tenant: str | None = None,
    rejected: Path | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Import raw events of any age, from Parquet or JSON lines; the same file twice counts once.

    Each line (or row) is one event as players send it, `channel_id` included, with or without what the collector adds:
    tenant_id, received_at, viewer_hash, country, region, city, asn, device_type, os, browser, is_bot. What
    `viewmeter export` wrote is taken too. The batch layer then counts anew the hours that got events: a running
    product does it within a minute or so, one that is stopped after its next start.

    Parameters
    ----------
    file
        Parquet or JSON lines.
    files
        More files.
    data
        The data folder.
    tenant
        Whose events these are, whatever the file says (default: as the file says, else the only tenant there is).
    rejected
        Write rows that are no events to this file, as JSON lines with their reason; repaired, it can be imported.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    from viewmeter.archive.incoming import Owners

    loaded = folder.settings(data, config)
    with folder.open_metadata(data, loaded) as metadata:
        known = whose.tenants(metadata)
        forced = whose.named(metadata, tenant) if tenant is not None else None
    owners = Owners(known, next(iter(known.values())) if len(known) == 1 else None, forced)
    seen = _Seen()
    with contextlib.ExitStack() as opened:
        raw = opened.enter_context(archive(data, loaded))
        aside = opened.enter_context(rejected.open("wb")) if rejected is not None else None
        for path in (file, *files):
            seen.answers.append(_import_file(raw, path, owners, seen, aside))
    seen.tell(json)


@dataclass
class _Seen:
    """What became of the files so far."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    hours: set[int] = field(default_factory=set)

    def tell(self, json: bool) -> None:
        """Print it. Raises `CommandError` where nothing in the files was an event."""
        refused = sum(answer["rejected"] for answer in self.answers)
        events = sum(answer["events"] for answer in self.answers)
        for one in self.shown:
            note(f"{one['file']}, row {one['row']}: {one['code']}: {one['detail']}")
        if refused > len(self.shown):
            note(f"… and {refused - len(self.shown)} more; --rejected FILE keeps all of them")
        hours = [rfc3339(hour) for hour in sorted(self.hours)]
        answer = {"events": events, "rejected": refused, "hours": hours, "files": self.answers}
        result(answer | {"rejections": self.shown}, "\n".join(_line(one) for one in self.answers), json)
        if refused and not events:
            raise CommandError("no row of these files is an event: see the reasons above")


def _import_file(raw: Archive, path: Path, owners: Owners, seen: _Seen, aside: IO[bytes] | None) -> dict[str, Any]:
    """Import one file; return what is told of it."""
    from viewmeter.archive.importing import import_file
    from viewmeter.archive.incoming import UnreadableFileError

    def refuse(one: Rejected) -> None:
        if len(seen.shown) < SHOWN:
            seen.shown.append({"file": str(path), "row": one.row, "code": one.code, "detail": one.detail})
        if aside is not None:
            aside.write(_with_reason(one))

    with progress(f"importing {path.name}") as tell:
        try:
            done = import_file(raw, path, owners, wiring.now_ms(), refuse, lambda rows: tell(f"{rows} rows"))
        except UnreadableFileError as problem:
            raise CommandError(str(problem)) from None
        except OSError as problem:
            raise CommandError(f"cannot read {path}: {problem.strerror or problem}") from None
    seen.hours |= done.hours
    refused = {"rejected": sum(done.rejected.values()), "reasons": dict(done.rejected)}
    return {"file": str(path), "rows": done.rows, "events": done.events, "known": done.known, **refused}


def _line(one: dict[str, Any]) -> str:
    if one["known"]:
        return f"{one['file']}: imported before, nothing to do ({one['events']} events)"
    return f"{one['file']}: {one['events']} of {one['rows']} rows imported, {one['rejected']} rejected"


def _with_reason(one: Any) -> bytes:
    import msgspec

    try:
        row = msgspec.json.decode(one.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        row = None
    if not isinstance(row, dict):
        row = {"raw": one.raw.decode("utf-8", "replace")}
    return msgspec.json.encode(row | {"import_error": f"row {one.row}: {one.code}: {one.detail}"}) + b"\n"


def export(
    *,
    start: str,
    end: str,
    data: Path = folder.DEFAULT_DATA,
    to: Path | None = None,
    format: Literal["parquet", "jsonl"] = "parquet",  # noqa: A002 - the option's name
    tenant: str | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Write raw events to a file that `viewmeter import` takes back.

    Parameters
    ----------
    start
        From this instant on, by the events' own time: RFC 3339, a date, or ms since the epoch.
    end
        Up to this instant, not included.
    data
        The data folder.
    to
        The file to write (default: stdout).
    format
        parquet or jsonl.
    tenant
        Only this tenant's events.
    config
        Settings file (TOML).
    json
        Print JSON alone (needs --to).
    """
    from viewmeter.archive import outgoing

    interval = Interval(_instant(start, "--start"), _instant(end, "--end"))
    if interval.start_ms >= interval.end_ms:
        raise CommandError("--end must be after --start")
    if to is None and (json or sys.stdout.isatty()):
        raise CommandError("give a file as --to, or send stdout to one")
    loaded = folder.settings(data, config)
    tenant_id = None
    if tenant is not None:
        with folder.open_metadata(data, loaded) as metadata:
            tenant_id = whose.owner(metadata, tenant).id
    write = outgoing.write_parquet if format == "parquet" else outgoing.write_lines
    with archive(data, loaded) as raw, _sink(to) as sink, progress("exporting"):
        try:
            count = write(outgoing.parts(raw, interval, tenant_id), sink)
        except ArchiveDamagedError as damage:
            raise CommandError(str(damage)) from None
    if to is not None:
        result({"events": count, "file": str(to)}, f"{count} events written to {to}", json)


@contextlib.contextmanager
def archive(data: Path, loaded: settings.Loaded) -> Iterator[Archive]:
    """Open the archive of a prepared folder, with all in it that is durable now."""
    if not (data / "meta.db").exists() and not (data / "log").is_dir():
        raise CommandError(f"{data} is not prepared: run `viewmeter init --data {data}` first")
    try:
        with contextlib.closing(wiring.log_reader(data)) as reader:
            raw = wiring.archive(loaded.config, data, reader)
            try:
                raw.flush()
                yield raw
            finally:
                raw.close()
    except ArchiveUnavailableError as problem:
        raise CommandError(str(problem)) from None


@contextlib.contextmanager
def _sink(to: Path | None) -> Iterator[IO[bytes]]:
    """Open the target; a file appears whole or not at all."""
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    making = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        with making.open("wb") as sink:
            yield sink
        making.replace(to)
    except OSError as problem:
        raise CommandError(f"cannot write {to}: {problem.strerror or problem}") from None
    finally:
        making.unlink(missing_ok=True)


def _instant(text: str, name: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{name} is {text!r}: give RFC 3339 like 2026-11-24T00:00:00Z, a date, or ms since the epoch"
        ) from None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
