"""Running the API on its socket, and what it leaves in the log."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from viewmeter.web.serve import serve_engine
from viewmeter.web.services import Services

from .conftest import Served, World, changed


def test_only_the_owner_may_connect(world: World, start: Callable[[Services], Served]) -> None:
    served = start(world.services)
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600


def test_the_socket_of_a_killed_engine_does_not_matter(
    world: World, start: Callable[[Services], Served], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("k")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "api"))
    dead.close()  # the file stays, as after SIGKILL
    served = Served(world.services, folder / "api")
    try:
        with served.client() as api:
            assert api.get("/healthz").status_code == 200
    finally:
        served.stop()
    assert not (folder / "api").exists()


def test_a_second_engine_on_the_socket_is_refused(world: World, start: Callable[[Services], Served]) -> None:
    served = start(world.services)
    with pytest.raises(RuntimeError, match="Another engine"):
        serve_engine(served.app, served.socket)
    with served.client() as api:
        assert api.get("/healthz").status_code == 200


def test_the_access_log_names_route_and_key_and_nothing_that_is_personal(
    world: World, start: Callable[[Services], Served]
) -> None:
    key, text = world.metadata.create_key("t", "read")
    headers = {"Authorization": f"Bearer {text}", "X-Forwarded-For": "203.0.113.7", "User-Agent": "someone"}
    with start(world.services).client() as api, capture_logs() as logs:
        api.get("/api/v1/analytics/realtime/private-video?name=alice", headers=headers)
        api.get("/signin?token=st_secret")
    entries = [entry for entry in logs if entry["event"] == "request"]
    assert [(entry["route"], entry["status"], entry["key"]) for entry in entries] == [
        ("/api/v1/analytics/realtime/{video_id}", 200, key.id),
        ("/signin", 401, None),
    ]
    said = repr(logs)
    for private in ("private-video", "alice", "203.0.113.7", "someone", "st_secret", text):
        assert private not in said


def test_the_access_log_can_be_off(world: World, start: Callable[[Services], Served]) -> None:
    with start(changed(world.services, access_log=False)).client() as api, capture_logs() as logs:
        api.get("/healthz")
    assert logs == []


def test_a_request_that_is_no_http_does_no_harm(world: World, start: Callable[[Services], Served]) -> None:
    served = start(world.services)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.socket))
        raw.sendall(b"\x00\x01nonsense\r\n\r\n")
    with served.client() as api:
        answer: httpx.Response = api.get("/healthz")
    assert answer.status_code == 200
    assert Path(served.socket).exists()
