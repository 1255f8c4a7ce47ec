"""Requests that are two things at once, or no request at all: each has one reading, and the next one is unharmed.

Smuggling needs two servers that disagree on where a request ends. So each case says how many answers there are; what
ends a connection is the stronger defence, and stands there as `closed`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx
import pytest
from raw_http import Heard, beacon, chunked, connect, good, listen, post, say, still_serves
from running import Product, StartProduct

CHUNKED = b"Transfer-Encoding: chunked"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"

Make = Callable[[Product, bytes, bytes], bytes]
"""What is sent: from the product, a good body and the header that gives its length."""

# name: what is sent, the answers, whether the server closes the connection.
FRAMING: dict[str, tuple[Make, list[int], bool]] = {
    "length and chunks, the length longer": (
        lambda p, b, n: post(p, chunked(b) + SMUGGLED, b"Content-Length: 900", CHUNKED), [204], True),
    "length and chunks, the length shorter": (
        lambda p, b, n: post(p, chunked(b) + SMUGGLED, CHUNKED, b"Content-Length: 4"), [204], True),
    "one length twice": (lambda p, b, n: post(p, b, n, n), [204], False),
    "two lengths": (lambda p, b, n: post(p, b + SMUGGLED, n, b"Content-Length: 3"), [400], True),
    "a list of lengths": (lambda p, b, n: post(p, b, n + b", 3"), [400], True),
    "a negative length": (lambda p, b, n: post(p, b, b"Content-Length: -1"), [400], True),
    "a length with a plus": (lambda p, b, n: post(p, b, b"Content-Length: +%d" % len(b)), [400], True),
    "a hexadecimal length": (lambda p, b, n: post(p, b, b"Content-Length: 0x10"), [400], True),
    "a length beyond 64 bits": (lambda p, b, n: post(p, b, b"Content-Length: " + b"9" * 30), [400], True),
    "a folded header": (lambda p, b, n: post(p, b, n, b"X: a\r\n b"), [400], True),
    "a folded length": (lambda p, b, n: post(p, b, b"Content-Length:\r\n %d" % len(b)), [400], True),
    "a space before the colon": (lambda p, b, n: post(p, b, b"Content-Length : %d" % len(b)), [400], True),
    "a space before the colon of the coding": (
        lambda p, b, n: post(p, chunked(b), b"Transfer-Encoding : chunked"), [400], True),
    "bare line feeds": (lambda p, b, n: post(p, b, n).replace(b"\r\n", b"\n"), [204], False),
    "a coding that is not chunked": (lambda p, b, n: post(p, b, n, b"Transfer-Encoding: identity"), [400], True),
    "a coding that ends otherwise": (
        lambda p, b, n: post(p, chunked(b), b"Transfer-Encoding: chunked, gzip"), [400], True),
    "a coding nobody knows": (lambda p, b, n: post(p, b, n, b"Transfer-Encoding: xchunked"), [400], True),
    "two codings": (lambda p, b, n: post(p, chunked(b), b"Transfer-Encoding: gzip, chunked"), [400], False),
    "chunked twice": (lambda p, b, n: post(p, chunked(b), CHUNKED, CHUNKED), [400], False),
    "a control character before chunked": (
        lambda p, b, n: post(p, chunked(b), b"Transfer-Encoding: \x0bchunked"), [400], True),
    "chunks of HTTP/1.0": (lambda p, b, n: post(p, chunked(b), CHUNKED, version=b"1.0"), [400], True),
    "chunks of a few bytes": (
        lambda p, b, n: post(p, chunked(*(b[i : i + 8] for i in range(0, len(b), 8))), CHUNKED), [204], False),
    "a chunk extension": (lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b";a=b\r\n", 1), CHUNKED), [204], False),
    "a chunk extension of 20 KB": (
        lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b";" + b"a" * 20_000 + b"\r\n", 1), CHUNKED), [400], True),
    "a line feed in a chunk extension": (
        lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b";a\n", 1) + SMUGGLED, CHUNKED), [400], True),
    "a chunk size beyond 64 bits": (lambda p, b, n: post(p, b"f" * 20 + b"\r\n" + b, CHUNKED), [400], True),
    "a negative chunk size": (lambda p, b, n: post(p, b"-1\r\n" + b, CHUNKED), [400], True),
    "a chunk size with 0x": (lambda p, b, n: post(p, b"0x5\r\n[    \r\n0\r\n\r\n", CHUNKED), [400], True),
    "a chunk that goes on after its size": (
        lambda p, b, n: post(p, b"%x\r\n%sX\r\n0\r\n\r\n" % (len(b), b) + SMUGGLED, CHUNKED), [400], True),
    "a whole body and then no chunk": (
        lambda p, b, n: post(p, b"%x\r\n%s\r\nzz\r\n" % (len(b), b), CHUNKED), [400], True),
    "trailers": (
        lambda p, b, n: post(p, chunked(b)[:-2] + b"Content-Length: 3\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", CHUNKED),
        [400], True),
    "a chunk size with 200 zeros before": (lambda p, b, n: post(p, b"0" * 200 + chunked(b), CHUNKED), [204], False),
    "a last chunk of three zeros": (lambda p, b, n: post(p, chunked(b)[:-5] + b"000\r\n\r\n", CHUNKED), [204], False),
    "no chunk size": (lambda p, b, n: post(p, b"\r\n" + b + b"\r\n0\r\n\r\n" + SMUGGLED, CHUNKED), [400], True),
    "a space before the chunk size": (lambda p, b, n: post(p, b" " + chunked(b) + SMUGGLED, CHUNKED), [400], True),
    "a line feed after the chunk size": (
        lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b"\n", 1) + SMUGGLED, CHUNKED), [400], True),
    "a carriage return after the chunk size": (
        lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b"\r", 1) + SMUGGLED, CHUNKED), [400], True),
    "a line feed after a chunk": (
        lambda p, b, n: post(p, b"%x\r\n%s\n0\r\n\r\n" % (len(b), b) + SMUGGLED, CHUNKED), [400], True),
    "line feeds after the last chunk": (
        lambda p, b, n: post(p, chunked(b)[:-4] + b"\n\n" + SMUGGLED, CHUNKED), [400], True),
    "a line break in a quoted chunk extension": (
        lambda p, b, n: post(p, chunked(b).replace(b"\r\n", b';a="\r\n"\r\n', 1) + SMUGGLED, CHUNKED), [400], True),
    "the coding in capitals": (
        lambda p, b, n: post(p, chunked(b), b"TRANSFER-ENCODING:\tCHUNKED "), [204], False),
    "the coding in quotes": (
        lambda p, b, n: post(p, chunked(b) + SMUGGLED, b'Transfer-Encoding: "chunked"'), [400], True),
    "the coding with a parameter": (
        lambda p, b, n: post(p, chunked(b) + SMUGGLED, b"Transfer-Encoding: chunked;q=1"), [400], True),
    "an empty coding and chunked": (
        lambda p, b, n: post(p, chunked(b), b"Transfer-Encoding: , chunked"), [400], False),
    "an empty coding and a length": (lambda p, b, n: post(p, b + SMUGGLED, n, b"Transfer-Encoding: "), [400], True),
    "a coding with an underscore, and a length": (
        lambda p, b, n: post(p, b, n, b"Transfer_Encoding: chunked"), [204], False),
    "a length and chunks of HTTP/1.0": (
        lambda p, b, n: post(p, chunked(b) + SMUGGLED, n, CHUNKED, version=b"1.0"), [400], True),
    "an empty length": (lambda p, b, n: post(p, b + SMUGGLED, b"Content-Length: "), [400], True),
    "a length with zeros before": (lambda p, b, n: post(p, b, b"Content-Length: 000%d" % len(b)), [204], False),
    "a list of equal lengths": (lambda p, b, n: post(p, b + SMUGGLED, n + b", %d" % len(b)), [400], True),
    "a length that the connection owns": (
        lambda p, b, n: post(p, b, n, b"Connection: content-length"), [204], False),
    "neither a length nor chunks": (lambda p, b, n: post(p, b""), [400], False),
    "a request to a proxy": (
        lambda p, b, n: post(p, b, n).replace(b"POST /", b"POST http://elsewhere.example/"), [204], False),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMING)
def test_a_body_has_one_end(product: Product, name: str) -> None:
    make, statuses, closed = FRAMING[name]
    body = beacon(f"framing {name}")
    data = make(product, body, b"Content-Length: %d" % len(body))
    if closed:
        heard = say(product, data, answers=None)
        assert (heard.statuses, heard.closed) == (statuses, True), heard.raw
    else:  # the very next request on the same connection is answered as what it is
        heard = say(product, data + HEALTH, answers=len(statuses) + 1)
        assert heard.statuses == [*statuses, 200], heard.raw
    still_serves(product, "framing")


GZIP = b"Content-Encoding: gzip"
# name: what is sent with a request in its body, the answers to both, whether the connection ends with the first.
REFUSED: dict[str, tuple[Make, list[int], bool]] = {
    "no key": (lambda p, b, n: post(p, b, n).replace(p.ingest_key.encode(), b"pk_no"), [401, 200], False),
    "no key, in chunks": (
        lambda p, b, n: post(p, chunked(b), CHUNKED).replace(p.ingest_key.encode(), b"pk_no"), [401, 200], False),
    "no address": (lambda p, b, n: post(p, b, n).replace(b"beacon", b"nowhere"), [404, 200], False),
    "another method": (lambda p, b, n: post(p, b, n).replace(b"POST", b"PUT"), [405, 200], False),
    "a preflight": (lambda p, b, n: post(p, b, n).replace(b"POST", b"OPTIONS"), [204, 200], False),
    "another type": (lambda p, b, n: post(p, b, n, b"Content-Type: text/html"), [415, 200], False),
    "another encoding": (lambda p, b, n: post(p, b, n, b"Content-Encoding: br"), [415, 200], False),
    "no gzip": (lambda p, b, n: post(p, b, n, GZIP), [400, 200], False),
    "no JSON": (post, [400, 200], False),
    "2 MB": (lambda p, b, n: post(p, b * 50_000, b"Content-Length: %d" % (len(b) * 50_000)), [413, 200], False),
    "more than is thrown away": (lambda p, b, n: post(p, b, b"Content-Length: 20000000"), [413], True),
    "a question with a body": (
        lambda p, b, n: b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + n + b"\r\n\r\n" + b, [200, 200], False),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_body_of_a_refused_request_is_never_the_next_request(product: Product, name: str) -> None:
    make, statuses, closed = REFUSED[name]
    body = SMUGGLED.replace(b"/version", b"/nowhere-smuggled")
    heard = say(product, make(product, body, b"Content-Length: %d" % len(body)) + HEALTH, None if closed else 2)
    assert (heard.statuses, heard.closed) == (statuses, closed), heard.raw
    assert b"smuggled" not in heard.raw
    still_serves(product, "refused")


def test_who_asks_before_sending_a_body_is_told_to_go_on_or_is_refused_without_it(product: Product) -> None:
    body, expect = beacon("expect"), b"Expect: 100-continue"
    length = b"Content-Length: %d" % len(body)
    with connect(product) as client:
        client.sendall(post(product, b"", length, expect))
        said = b""
        while b"\r\n\r\n" not in said and (piece := client.recv(4_096)):
            said += piece
        assert said == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body + HEALTH)
        assert listen(client, 2).statuses == [204, 200]
    no_key = post(product, b"", length, expect).replace(product.ingest_key.encode(), b"pk_no")
    too_large = post(product, b"", b"Content-Length: 2000000", expect)
    for request, status, code in ((no_key, 401, "invalid_key"), (too_large, 413, "body_too_large")):
        heard = say(product, request, answers=None)
        assert (heard.statuses, heard.codes, heard.closed) == ([status], [code], True), heard.raw
        assert b" 100 " not in heard.raw, "a body that is not wanted is not asked for"


def test_chunks_that_hold_next_to_nothing_are_not_read_on(product: Product) -> None:
    body = beacon("chunks")
    one = chunked(*(body[at : at + 1] for at in range(len(body))))
    question = (
        b"POST /api/v1/analytics/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {product.secret_key}\r\n".encode()
        + CHUNKED + b"\r\n\r\n" + chunked(*[b" "] * 200)
    )  # fmt: skip
    for request in (post(product, one, CHUNKED), question):
        heard = say(product, request, answers=None)
        assert (heard.statuses, heard.codes, heard.closed) == ([400], ["invalid_body"], True), heard.raw
        assert b"its first 66 chunks hold 66 bytes: send 64 bytes or more in each" in heard.raw
    long = body + b" " * 20_000
    for size in (32, 64, 65, 4_096):
        some = chunked(*(long[at : at + size] for at in range(0, len(long), size)))
        heard = say(product, post(product, some, CHUNKED), answers=1)
        assert heard.statuses == [204 if size >= 64 else 400], (size, heard.raw)
    few = chunked(*(body[at : at + len(body) // 60 + 1] for at in range(0, len(body), len(body) // 60 + 1)))
    assert say(product, post(product, few, CHUNKED), answers=1).statuses == [204], "a few small ones are no attack"


# name: what is sent, the answer (None: closed without one), its problem code ("" where the server itself answers).
REQUESTS: dict[str, tuple[bytes, int | None, str]] = {
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request"),
    "two Hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "invalid_request"),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400, ""),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200, ""),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", None, ""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ""),
    "two spaces": (b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    "tabs for spaces": (b"GET\t/healthz\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    "HTTP/1.2": (b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n", 400, ""),
    "http in lower case": (b"GET /healthz http/1.1\r\nHost: a\r\n\r\n", 400, ""),
    "a folded first header": (b"GET /healthz HTTP/1.1\r\n Host: a\r\n\r\n", 400, ""),
    "blank lines before": (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
    "an address of 70 KB": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, ""),
    "a tunnel": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    "a method in lower case": (b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    "a request to a proxy": (b"GET http://elsewhere.example/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
    "OPTIONS of everything": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_request"),
    "encoded slashes": (b"GET /api%2Fv1%2fevents%2Fbeacon HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    "a way up": (b"GET /api/v1/events/../../../healthz HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
    "an encoded way up": (b"GET /assets/%2e%2e/%2e%2e/app.py HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
    "a null in the path": (b"GET /healthz%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
    "a line break in the path": (b"GET /x%0d%0aX-Y:%20z HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
    "an upgrade to a websocket": (
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"), 200, ""),
    "an upgrade to HTTP/2": (
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), 200, ""),
    "a null in a header": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, ""),
    "a carriage return in a header": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", 400, ""),
    "200 headers": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431, ""),
    "headers of 500 KB": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 500_000 + b"\r\n\r\n", 431, ""),
    "a key that is the documentation's": (
        "GET /api/v1/analytics/metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk_…\r\n\r\n".encode(),
        401, "invalid_key"),
    "a key that the connection owns": (
        (b"GET /api/v1/analytics/metrics HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\n"
        b"Authorization: Bearer sk_x\r\n\r\n"), 401, "missing_key"),
    "another coding of the body": (
        b"POST /api/v1/analytics/query HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400, "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_no_proper_request_has_a_defined_answer(product: Product, name: str) -> None:
    data, status, code = REQUESTS[name]
    heard = say(product, data, answers=None if status is None else 1)
    assert heard.statuses == ([] if status is None else [status]), heard.raw
    assert heard.codes == ([code] if code else []), heard.raw
    if code:
        assert b"application/problem+json" in heard.raw
    still_serves(product, "requests")


def test_pipelined_requests_are_answered_in_order_by_worker_and_engine(product: Product) -> None:
    missing = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
    heard = say(product, HEALTH + good(product, "pipeline") + missing + good(product, "pipeline") + HEALTH, answers=5)
    assert heard.statuses == [200, 204, 404, 204, 200]


QUERY = b"POST /api/v1/analytics/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 500\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n"],
    ids=["length", "chunks"],
)
def test_a_body_that_breaks_off_never_reaches_the_engine_as_a_whole_one(product: Product, framing: bytes) -> None:
    key = f"Authorization: Bearer {product.secret_key}\r\n".encode()
    with connect(product) as client:
        client.sendall(QUERY + key + framing)
        client.shutdown(1)
        heard: Heard = listen(client, None)
    assert heard.statuses in ([], [400]), heard.raw
    assert heard.codes in ([], ["invalid_body"])
    still_serves(product, "broken body")


def test_a_cmcd_body_that_breaks_off_is_not_taken_for_a_whole_one(product: Product) -> None:
    now = time.time_ns() // 1_000_000
    line = f'cid="v",e=ps,sid="cut",sn=0,sta=p,bl=21300,ts={now},v=2'.encode()
    head = f"POST /api/v1/events/cmcd?key={product.ingest_key}&channel_id=cut HTTP/1.1\r\nHost: a\r\n".encode()
    heard = say(product, head + CHUNKED + b"\r\n\r\n%x\r\n%s\r\nzz\r\n" % (len(line), line), answers=None)
    assert (heard.statuses, heard.codes) == ([400], ["invalid_body"]), heard.raw


def test_nobody_is_believed_about_where_he_comes_from(start_product: StartProduct) -> None:
    """What a client writes into the headers of proxies reaches neither log nor session."""
    product = start_product("--workers", "1", env={"VIEWMETER_COLLECTOR__REQUESTS_PER_SECOND_PER_ADDRESS": "1"})
    body = (b"[]", b"Content-Length: 2", b"Forwarded: for=1.1.1.1")
    heard = [say(product, post(product, *body, b"X-Forwarded-For: 198.51.100.%d" % n)) for n in range(6)]
    assert 429 in [one.statuses[0] for one in heard], "made-up addresses are all the same one"
    signin = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}
    answer = httpx.post(
        f"{product.base_url}/api/v1/session", headers=signin, json={"key": product.secret_key}, timeout=30
    )
    assert answer.status_code == 403 or "Secure" not in answer.headers.get("set-cookie", ""), answer.text


def test_the_limits_hold_over_all_workers(start_product: StartProduct) -> None:
    env = {
        "VIEWMETER_COLLECTOR__REQUESTS_PER_SECOND_PER_KEY": "2",
        "VIEWMETER_COLLECTOR__RATE_BURST_SECONDS": "1000",
    }
    product = start_product("--workers", "2", env=env)
    began = time.monotonic()
    answers = [say(product, good(product, "limits")) for _ in range(2_300)]  # each connection may get another worker
    admitted = sum(one.statuses == [204] for one in answers)
    assert 2_000 <= admitted <= 2_000 + 2 * (time.monotonic() - began) + 2
    refused = next(one for one in answers if one.statuses == [429])
    head = refused.raw.partition(b"\r\n\r\n")[0].decode()
    assert '"key";q=2000;w=1000' in head
    assert '"key";r=0;t=1' in head
    assert json.loads(refused.raw.partition(b"\r\n\r\n")[2])["code"] == "rate_limited"
