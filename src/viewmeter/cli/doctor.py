"""`viewmeter doctor`: is this machine, and this data folder, fit to run the product? Each finding says what to do."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from viewmeter import config as settings
from viewmeter import wiring
from viewmeter.archive.protocol import ArchiveUnavailableError
from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, result, table
from viewmeter.collector.decoder import decoder
from viewmeter.collector.settings import CollectorSettings
from viewmeter.metadata.settings import MetadataSettings
from viewmeter.supervisor import lock, port
from viewmeter.supervisor.settings import ServerSettings

State = Literal["ok", "warn", "fail"]

LOW_DISK_BYTES: Final = 2 << 30
SLOW_COMMIT_MS: Final = 20.0
COMMITS: Final = 20
MIN_OPEN_FILES: Final = 1024
TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: State
    detail: str


def doctor(*, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """Check this machine and a data folder; exit 0 only when nothing is wrong.

    Parameters
    ----------
    data
        The data folder; need not exist yet.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    loaded = folder.settings(data, config)
    checks: tuple[Callable[[Path, settings.Loaded], Finding], ...] = (
        _python, _decoder, _open_files, _data_folder, _disk_space, _commits, _metadata, _log, _archive, _store,
        _dashboard, _product,
    )  # fmt: skip
    findings = [check(data, loaded) for check in checks]
    rows = [(item.state.upper(), item.check, item.detail) for item in findings]
    failed = [item.check for item in findings if item.state == "fail"]
    answer = {"ok": not failed, "findings": [asdict(item) for item in findings]}
    result(answer, table(("STATE", "CHECK", "FOUND"), rows), json)
    if failed:
        raise CommandError(f"something needs you: {', '.join(failed)} (see above for what to do)")


def _python(_: Path, __: settings.Loaded) -> Finding:
    return Finding("python", "ok", f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")


def _decoder(_: Path, loaded: settings.Loaded) -> Finding:
    used, detail = decoder()
    if not loaded.config.of(CollectorSettings).compiled_decoder:
        return Finding("decoder", "ok", "beacons go through msgspec: collector.compiled_decoder is false")
    return Finding("decoder", "ok" if used == "compiled" else "warn", detail)


def _open_files(_: Path, __: settings.Loaded) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MIN_OPEN_FILES:
        return Finding("open files", "warn", f"at most {soft} (hard {hard}): raise with `ulimit -n {MIN_OPEN_FILES}`")
    return Finding("open files", "ok", f"at most {soft}")


def _data_folder(data: Path, _: settings.Loaded) -> Finding:
    if not data.exists():
        return Finding("data folder", "ok", f"{data} will be made by `viewmeter up --data {data}`")
    if not data.is_dir() or not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "data folder", "fail", f"{data} is not a writable folder: change its owner or give another --data"
        )
    return Finding("data folder", "ok", str(data.absolute()))


def _disk_space(data: Path, _: settings.Loaded) -> Finding:
    usage = shutil.disk_usage(_existing(data))
    text = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"
    if usage.free < LOW_DISK_BYTES:
        return Finding("disk", "warn", f"{text}: a full disk answers 503 to players until there is room again")
    return Finding("disk", "ok", text)


def _commits(data: Path, _: settings.Loaded) -> Finding:
    """Measure what each 204 waits for: a small durable commit."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=_existing(data)) as scratch,
            closing(sqlite3.connect(Path(scratch) / "probe.db", isolation_level=None)) as db,
        ):
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE TABLE t (b BLOB)")
            begun = time.perf_counter()
            for _i in range(COMMITS):
                db.execute("INSERT INTO t VALUES (?)", (b"x" * 20_000,))
            each_ms = (time.perf_counter() - begun) / COMMITS * 1000
    except (OSError, sqlite3.Error) as problem:
        return Finding("durable commit", "fail", f"cannot write to {_existing(data)}: {problem}")
    text = f"{each_ms:.1f} ms for 20 KB"
    if each_ms > SLOW_COMMIT_MS:
        return Finding("durable commit", "warn", f"{text}: players wait for this; use a faster disk, not a network one")
    return Finding("durable commit", "ok", text)


def _metadata(data: Path, loaded: settings.Loaded) -> Finding:
    if not loaded.config.of(MetadataSettings).url and not (data / "meta.db").exists():
        return Finding("keys", "ok", "none yet: the first `viewmeter up` makes them")
    with folder.open_metadata(data, loaded) as metadata:
        tenants, more = metadata.list_tenants(limit=100)
    return Finding("keys", "ok", f"{len(tenants)}{'+' if more else ''} tenant(s)")


def _log(data: Path, _: settings.Loaded) -> Finding:
    if not (data / "log").is_dir():
        return Finding("event log", "ok", "empty")
    reader = wiring.log_reader(data)
    damaged, ends = reader.damaged(), reader.ends()
    if damaged:
        partition, offset, reason = damaged[0]
        return Finding(
            "event log", "fail",
            f"{len(damaged)} damaged batch(es) set aside, the first: partition {partition}, offset {offset}, {reason}; "
            "check the disk, the rest is served",
        )  # fmt: skip
    return Finding("event log", "ok", f"{len(ends)} partition(s), {sum(ends.values())} batches ever written")


def _archive(data: Path, loaded: settings.Loaded) -> Finding:
    if not (data / "archive").is_dir():
        return Finding("archive", "ok", "empty")
    reader = wiring.log_reader(data)
    try:
        archive = wiring.archive(loaded.config, data, reader)
        figures = archive.figures()
        archive.close()
    except ArchiveUnavailableError as problem:
        return Finding("archive", "fail", str(problem))
    finally:
        reader.close()
    if figures.damaged:
        path, reason = figures.damaged[0]
        return Finding(
            "archive", "fail",
            f"{len(figures.damaged)} damaged file(s), the first: {path}, {reason}; put them back from a backup, until "
            "then their hours keep the numbers they have",
        )  # fmt: skip
    text = f"{figures.events} events in {figures.files} files, {figures.bytes / 2**20:.1f} MiB"
    return Finding("archive", "ok", text)


def _store(data: Path, loaded: settings.Loaded) -> Finding:
    path = data / "store.duckdb"
    if not path.exists():
        return Finding("store", "ok", "empty")
    if lock.running(data) is not None:
        return Finding("store", "ok", f"in use by the running product, {path.stat().st_size / 2**20:.1f} MiB")
    try:
        store = wiring.store(loaded.config, data)
    except Exception as problem:  # noqa: BLE001 - whatever it is, it belongs into the report
        return Finding("store", "fail", f"cannot be opened: {problem}")
    try:
        figures = store.figures()
    finally:
        store.close()
    return Finding("store", "ok", f"{sum(figures.rows.values())} rows, {figures.bytes_on_disk / 2**20:.1f} MiB")


def _dashboard(_: Path, __: settings.Loaded) -> Finding:
    built = Path(__file__).parents[1] / "web" / "static" / "index.html"
    if not built.exists():
        return Finding("dashboard", "warn", "not built: run `make build` in the clone")
    return Finding("dashboard", "ok", "built")


def _product(data: Path, loaded: settings.Loaded) -> Finding:
    owner = lock.running(data)
    if owner is None:
        server = loaded.config.of(ServerSettings)
        try:
            port.reserve(server.host, server.port).close()
        except port.PortError as problem:
            return Finding("product", "warn", f"not running, and {problem}")
        return Finding("product", "ok", f"not running; {port.url(server.host, server.port)} is free")
    url = folder.base_url(data, loaded)
    status = _status(url)
    if status != 200:
        return Finding("product", "fail", f"process {owner} runs, but {url}/readyz answers {status}: see its log")
    return Finding("product", "ok", f"process {owner} is ready at {url}")


def _status(url: str) -> int | str:
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, socket.gaierror, http.client.HTTPException) as problem:
        return f"nothing ({problem})"
    finally:
        connection.close()


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
