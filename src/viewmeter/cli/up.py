"""`viewmeter up`: everything that can be said no to is checked here, then this process becomes the supervisor."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from viewmeter import config as settings
from viewmeter.cli import access, folder
from viewmeter.cli.output import CommandError, say
from viewmeter.supervisor import lock, port
from viewmeter.supervisor.__main__ import become
from viewmeter.supervisor.assignment import Assignment
from viewmeter.supervisor.settings import ServerSettings

MAX_SOCKET_PATH: Final = 100
"""The kernel's bound for the path of a unix socket is 108 bytes (104 on macOS)."""


def up(
    *,
    data: Path = folder.DEFAULT_DATA,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    config: Path | None = None,
) -> None:
    """Run the whole product on this machine.

    Parameters
    ----------
    data
        Folder of all data; made and prepared at the first run, whose sign-in link and keys are then printed.
    host
        Address to listen on (default 127.0.0.1).
    port
        Port to listen on (default 8080; 0 = a free one).
    workers
        Collector processes (default: one less than there are cores).
    config
        Settings file (TOML); without it `viewmeter.toml` of the data folder, where there is one.
    """
    loaded = folder.settings(data, config)
    loaded = settings.override(loaded, "server", "command line", host=host, port=port, workers=workers)
    start(data, loaded)


def start(data: Path, loaded: settings.Loaded) -> NoReturn:
    """Check, prepare and become the supervisor. Raises `CommandError` where the product cannot start."""
    folder.make(data)
    data = data.absolute()
    server = loaded.config.of(ServerSettings)
    workers = server.workers or max(1, (os.cpu_count() or 1) - 1)
    if not 1 <= workers <= 256:
        raise CommandError(f"{workers} workers cannot be: give 1 to 256 as --workers")
    try:
        held = lock.take(data)
        listener = port.reserve(server.host, server.port)
    except (lock.DataFolderInUseError, port.PortError) as problem:
        raise CommandError(str(problem)) from None
    number = int(listener.getsockname()[1])
    url = port.url(server.host, number)
    _first_run(data, loaded, url)
    (data / "run" / "url").write_text(url)
    _lead_a_group()
    become(
        Assignment(
            server=server,
            config=msgspec.Raw(settings.dump(loaded.config)),
            data=data,
            socket=_socket_path(data),
            host=server.host,
            port=number,
            workers=workers,
        ),
        held,
        _keep(listener),
    )


def _first_run(data: Path, loaded: settings.Loaded, url: str) -> None:
    """Make the first tenant and print its keys and a sign-in link, where there are none yet."""
    with folder.open_metadata(data, loaded, made=True) as metadata:
        if metadata.has_keys():
            return
        made = metadata.init()
        say(f"sign in     {access.signin_link(metadata, url, made.tenant.id)}   (works once)")
        say(access.keys_text(made.ingest_key, made.secret_key))


def _keep(listener: socket.socket) -> int:
    return listener.detach()


def _socket_path(data: Path) -> Path:
    """Return where the engine listens: in `run/`, or in a private folder where that path is too long."""
    inside = data / "run" / "engine.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
        return inside
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        with contextlib.suppress(OSError):
            if len(os.fsencode(parent)) + len("/viewmeter-12345678/engine.sock") <= MAX_SOCKET_PATH:
                return Path(tempfile.mkdtemp(prefix="viewmeter-", dir=parent)) / "engine.sock"
    raise CommandError(
        f"the path of {data} is too long for a socket, and no folder for temporary files is there: "
        "choose a shorter --data, or set TMPDIR"
    )


def _lead_a_group() -> None:
    """Have a process group of one's own where no terminal hands out Ctrl-C by group.

    A script that starts this in the background can then end everything with one signal to the group. With a
    terminal the shell has made a group already, or (`make demo`) ours must stay the one that Ctrl-C reaches.
    """
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return
    if os.getpgrp() != os.getpid():
        with contextlib.suppress(PermissionError):
            os.setpgid(0, 0)
