"""`viewmeter import` and `export`: raw events into a data folder and out of it, while the product runs or not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

from viewmeter import config as settings
from viewmeter import wiring
from viewmeter.archive.protocol import Archive, ArchiveDamagedError, ArchiveUnavailableError
from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, note, result
from viewmeter.cli.progress import progress
from viewmeter.metadata.keys import Tenant
from viewmeter.metadata.store import Metadata, slug
from viewmeter.model.time import Interval, rfc3339, to_ms

SHOWN: Final = 20
"""Refused rows that are shown; --rejected keeps all of them."""

MAX_TENANTS: Final = 100_000


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
    from viewmeter.archive.importing import import_file
    from viewmeter.archive.incoming import Owners, Rejected, UnreadableFileError

    loaded = folder.settings(data, config)
    with folder.open_metadata(data, loaded) as metadata:
        known = _tenants(metadata)
    forced = _tenant(known, tenant) if tenant is not None else None
    owners = Owners(known, next(iter(known.values())) if len(known) == 1 else None, forced)
    answers: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    hours: set[int] = set()
    with contextlib.ExitStack() as opened:
        raw = opened.enter_context(archive(data, loaded))
        aside = opened.enter_context(rejected.open("wb")) if rejected is not None else None
        for path in (file, *files):

            def refuse(one: Rejected, path: Path = path) -> None:
                if len(shown) < SHOWN:
                    shown.append({"file": str(path), "row": one.row, "code": one.code, "detail": one.detail})
                if aside is not None:
                    aside.write(_with_reason(one))

            with progress(f"importing {path.name}") as tell:

                def so_far(rows: int, tell: Callable[[str], None] = tell) -> None:
                    tell(f"{rows} rows")

                try:
                    done = import_file(raw, path, owners, wiring.now_ms(), refuse, so_far)
                except UnreadableFileError as problem:
                    raise CommandError(str(problem)) from None
                except OSError as problem:
                    raise CommandError(f"cannot read {path}: {problem.strerror or problem}") from None
            hours |= done.hours
            answers.append(
                {"file": str(path), "rows": done.rows, "events": done.events, "known": done.known,
                 "rejected": sum(done.rejected.values()), "reasons": dict(done.rejected)}
            )  # fmt: skip
    refused = sum(answer["rejected"] for answer in answers)
    events = sum(answer["events"] for answer in answers)
    for one in shown:
        note(f"{one['file']}, row {one['row']}: {one['code']}: {one['detail']}")
    if refused > len(shown):
        note(f"… and {refused - len(shown)} more; --rejected FILE keeps all of them")
    answer = {"events": events, "rejected": refused, "hours": [rfc3339(h) for h in sorted(hours)],
              "files": answers, "rejections": shown}  # fmt: skip
    result(answer, "\n".join(_line(one) for one in answers), json)
    if refused and not events:
        raise CommandError("no row of these files is an event: see the reasons above")


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
            tenant_id = _tenant(_tenants(metadata), tenant).id
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


def _tenants(metadata: Metadata) -> dict[str, Tenant]:
    return {tenant.id: tenant for tenant in metadata.all_tenants(MAX_TENANTS)}


def _tenant(known: dict[str, Tenant], name: str) -> Tenant:
    tenant = known.get(name) or known.get(slug(name))
    if tenant is None:
        names = ", ".join(sorted(known)[:5]) or "none"
        raise CommandError(f"there is no tenant {name!r}: there is {names}; `viewmeter keys create` makes one")
    return tenant


def owner(metadata: Metadata, name: str | None) -> Tenant:
    """Return the tenant of that name, or the only one there is."""
    known = _tenants(metadata)
    if name is not None:
        return _tenant(known, name)
    if len(known) != 1:
        raise CommandError(f"there are {len(known)} tenants: say which with --tenant ({', '.join(sorted(known)[:5])})")
    return next(iter(known.values()))


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
