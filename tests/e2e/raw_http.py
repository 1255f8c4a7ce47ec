"""A client that says exactly the bytes it is told to, for tests of what no proper client would send."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from running import Product

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Heard:
    """What came back: every status in order, every problem code, all bytes, and whether the server closed."""

    statuses: list[int]
    codes: list[str]
    raw: bytes
    closed: bool


def connect(product: Product) -> socket.socket:
    where = urlsplit(product.base_url)
    assert where.port is not None
    return socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S)


def listen(client: socket.socket, answers: int | None) -> Heard:
    """Read until so many answers are there whole, or (None) until the server closes."""
    raw, closed = b"", False
    while answers is None or _whole(raw) < answers:
        try:
            piece = client.recv(65_536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            closed = True
            break
        raw += piece
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n", raw)]
    codes = [code.decode() for code in re.findall(rb'"code":"(\w+)"', raw)]
    return Heard([status for status in statuses if status != 100], codes, raw, closed)


def _whole(raw: bytes) -> int:
    count = 0
    while True:
        head, separator, rest = raw.partition(b"\r\n\r\n")
        if not separator:
            return count
        status = int(head[9:12])
        length = re.search(rb"(?im)^content-length: (\d+)\r?$", head)
        size = int(length[1]) if length and status not in (100, 204, 304) else 0
        if len(rest) < size:
            return count
        raw = rest[size:]
        count += status != 100


def say(product: Product, data: bytes, answers: int | None = 1) -> Heard:
    """Send the bytes on a connection of their own. answers: how many to wait for; None: until the server closes."""
    with connect(product) as client:
        client.sendall(data)
        return listen(client, answers)


def beacon(channel: str, seq: int = 0) -> bytes:
    now = time.time_ns() // 1_000_000
    sent = {"type": "play", "ts": now, "view_id": channel, "seq": seq, "video_id": "v", "channel_id": channel}
    return json.dumps([sent]).encode()


def post(product: Product, body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """A beacon request with exactly these headers beside Host."""
    line = f"POST /api/v1/events/beacon?key={product.ingest_key} HTTP/".encode() + version
    return b"\r\n".join([line, b"Host: a", *headers, b"", b""]) + body


def good(product: Product, channel: str) -> bytes:
    body = beacon(channel)
    return post(product, body, b"Content-Length: %d" % len(body))


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")).removesuffix(b"\r\n") + b"\r\n"


def still_serves(product: Product, channel: str) -> None:
    """Check that a good beacon and a good question are answered right."""
    heard = say(product, good(product, channel))
    assert heard.statuses == [204], heard.raw
    heard = say(product, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert heard.statuses == [200], heard.raw
