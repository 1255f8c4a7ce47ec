"""Clients that are slow, idle, silent or too many, against the product as shipped: the others are served meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import resource
import socket
import sqlite3
import threading
from collections.abc import Iterator

import httpx
import psutil
import pytest
import zstandard
from raw_http import beacon, connect, good, listen, post, say, still_serves
from running import Product, StartProduct, children, wait_until

IDLE = 10_000


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < IDLE + 1_000:
        if hard < IDLE + 1_000:
            pytest.skip(f"this process may open {hard} files; {IDLE + 1_000} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def drip(client: socket.socket, data: bytes, ended: threading.Event) -> None:
    """Send one byte after the other until the server has had enough."""
    with contextlib.suppress(OSError):
        for n in range(len(data)):
            if ended.wait(0.05):
                return
            client.sendall(data[n : n + 1])


@contextlib.contextmanager
def dripping(product: Product, at_once: bytes, slowly: bytes) -> Iterator[socket.socket]:
    ended = threading.Event()
    with connect(product) as client:
        client.sendall(at_once)
        thread = threading.Thread(target=drip, args=(client, slowly, ended))
        thread.start()
        try:
            yield client
        finally:
            ended.set()
            thread.join(30)


def test_a_client_that_drips_its_headers_or_body_is_cut_off_and_others_are_served(start_product: StartProduct) -> None:
    env = {
        "VIEWMETER_COLLECTOR__HEADER_TIMEOUT_S": "1",
        "VIEWMETER_COLLECTOR__BODY_TIMEOUT_S": "1",
        "VIEWMETER_GATEWAY__BODY_TIMEOUT_S": "1",
    }
    product = start_product("--workers", "1", env=env)
    body = post(product, b"", b"Content-Length: 5000")
    question = (
        b"POST /api/v1/analytics/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {product.secret_key}\r\n".encode()
        + b"Content-Length: 5000\r\n\r\n"
    )
    large = post(product, b"", b"Content-Length: 500000")
    with (
        dripping(product, b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X: " + b"a" * 5_000) as headers,
        dripping(product, body, b" " * 5_000) as small_body,
        dripping(product, large, b" " * 5_000) as large_body,
        dripping(product, question, b" " * 5_000) as engines_body,
        connect(product) as silent,
    ):
        still_serves(product, "drip")
        assert listen(headers, None).raw == b"", "nothing is said to who has not asked yet"
        assert listen(silent, None).raw == b""
        for client in (small_body, large_body, engines_body):
            heard = listen(client, None)
            assert (heard.statuses, heard.codes) == ([408], ["body_timeout"]), heard.raw
    still_serves(product, "drip")


def test_ten_thousand_idle_connections_leave_room_for_good_clients(
    start_product: StartProduct, many_files: None
) -> None:
    product = start_product("--workers", "1")
    before = psutil.Process(children(product)["worker"].pid).memory_info().rss
    with contextlib.ExitStack() as idle:
        for n in range(IDLE):
            client = idle.enter_context(connect(product))
            if n % 2:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHo")  # half of them have begun a request
            if n % 500 == 499:
                still_serves(product, "idle")
        held = psutil.Process(children(product)["worker"].pid).memory_info().rss - before
        print(f"{held / IDLE / 1024:.1f} KiB a connection")
        assert held < 400 << 20
        still_serves(product, "idle")


def test_at_the_bound_of_connections_those_that_do_nothing_make_room(start_product: StartProduct) -> None:
    env = {"VIEWMETER_COLLECTOR__MAX_CONNECTIONS": "200", "VIEWMETER_COLLECTOR__HEADER_TIMEOUT_S": "600"}
    product = start_product("--workers", "1", env=env)
    with contextlib.ExitStack() as idle:
        for _ in range(400):
            idle.enter_context(connect(product))
        still_serves(product, "shed")
        wait_until(
            "idle connections to be counted as closed", lambda: product.metric("viewmeter_connections_shed") >= 100
        )


def test_a_log_that_blocks_is_told_early_and_costs_no_memory(start_product: StartProduct) -> None:
    bound = 700  # so from 200 waiting events on, nothing more is read
    product = start_product("--workers", "1", env={"VIEWMETER_COLLECTOR__MAX_PENDING_EVENTS": str(bound)})
    assert say(product, good(product, "first")).statuses == [204]
    (segment,) = (product.data / "log" / "p00").glob("*.sqlite")
    worker = psutil.Process(children(product)["worker"].pid)
    before = worker.memory_info().rss
    answers: list[tuple[int, str]] = []

    enough = threading.Event()

    def send(n: int) -> None:
        body = b"[" + b",".join(beacon("blocked", n * 10 + i)[1:-1] for i in range(10)) + b"]"
        with httpx.Client(base_url=product.base_url, timeout=60) as client:
            while not enough.is_set():
                answer = client.post("/api/v1/events/beacon", params={"key": product.ingest_key}, content=body)
                answers.append((answer.status_code, answer.json()["code"] if answer.content else ""))
                assert answer.status_code == 204 or int(answer.headers["retry-after"]) >= 1

    with sqlite3.connect(segment, isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")  # the disk takes nothing now
        threads = [threading.Thread(target=send, args=(n,)) for n in range(60)]
        for thread in threads:
            thread.start()
        wait_until("beacons to be refused", lambda: (503, "overloaded") in answers)
        # Of this one nothing but the headers is ever sent: the answer does not wait for the body.
        early = say(product, post(product, b"", b"Content-Length: 30000"))
        wait_until("thousands of beacons", lambda: len(answers) >= 3_000)
        grown = worker.memory_info().rss - before
        lock.execute("ROLLBACK")
        enough.set()
        for thread in threads:
            thread.join(60)
    assert (early.statuses, early.codes) == ([503], ["overloaded"]), early.raw
    assert {answer for answer in answers if answer[0] != 503} <= {(204, "")}
    print(f"{grown >> 20} MiB more after {len(answers)} beacons")
    assert grown < 100 << 20
    wait_until("the log to be written again", lambda: say(product, good(product, "after")).statuses == [204])


BOMBS = {
    "gzip, 1000 to 1": ("gzip", gzip.compress(b"[" + b" " * 300_000_000 + b"]"), 413),
    "zstd, 30000 to 1": ("zstd", zstandard.compress(b"[" + b" " * 300_000_000 + b"]"), 413),
    "gzip, 50000 empty members": ("gzip", gzip.compress(b"", mtime=0) * 50_000, 400),
    "zstd, 100000 empty frames": ("zstd", zstandard.compress(b"") * 100_000, 400),
    "zstd, cut short": ("zstd", zstandard.compress(b"[" + b"1," * 5_000 + b"1]")[:-3], 400),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_neither_time_nor_memory(product: Product, name: str) -> None:
    encoding, bomb, status = BOMBS[name]
    worker = psutil.Process(children(product)["worker"].pid)
    cpu_s = sum(worker.cpu_times()[:2])
    for _ in range(5):
        heard = say(
            product, post(product, bomb, b"Content-Length: %d" % len(bomb), b"Content-Encoding: " + encoding.encode())
        )
        assert heard.statuses == [status], heard.raw
    assert sum(worker.cpu_times()[:2]) - cpu_s < 1.0, "of its processor's time, for five of them"
    assert worker.memory_info().rss < 400 << 20
    still_serves(product, "bombs")
