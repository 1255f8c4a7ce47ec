"""nginx beside the collector: what a C server needs to put the same bodies on the same disk.

In: a folder and a port. Out: a running nginx (one process, one event loop, like one worker) that writes each body to a
file of its own and answers 204. Not the same work, and said so (`DOES`): no fsync, nothing is decoded, checked or
looked up.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

DOES: Final = "writes each body to a file without fsync and answers 204; decodes, checks and looks up nothing"

_SETTINGS: Final = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_max_body_size 1m;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            root {folder}/bodies;
            dav_methods PUT;
        }}
    }}
}}
"""


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[tuple[int, int]]:
    """Run nginx; yield (port, process id); stop it in the end."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise RuntimeError(
            "nginx is not installed: install it (Debian: `apt-get install nginx-core`) and run this again"
        )
    (folder / "bodies").mkdir(parents=True)
    settings = folder / "nginx.conf"
    settings.write_text(_SETTINGS.format(folder=folder, port=port))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(settings)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process, folder / "error.log")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    said = log.read_text()[-300:].strip() if log.exists() else ""
    raise RuntimeError(f"nginx did not start: {said or 'it said nothing'}")
