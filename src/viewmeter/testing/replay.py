"""Replay: recorded beacons are posted again, as they came.

In: files of JSON lines, an address and an ingest key. Out: `Summary`. A file is one clock; its lines are posted in
order, each after the answer to the one before, and several files at once. Two kinds of lines, told apart by `body`:

    {"received_at_ms": 1795569356023, "content_type": "application/cmcd", "headers": {...}, "body": "cid=..."}
    {"received_at_ms": 1795569356023, "t": 1795569356001, "body": [{"type": "play", ...}]}

A first line without `body` is the recording's description and is skipped. Promised: bodies of the first kind are
sent byte for byte; only `shift_to_now` moves their `ts`, so that the recording ends when its replay ends. Refusals for
the moment (429, 503, no connection) are retried with backoff. Files are streamed, not loaded.
Not done: headers other than User-Agent and Content-Type, since an Origin or a key of then says nothing now.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec
import stamina

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""A beacon has at most 1 MiB; escaped in JSON it can be a few times that."""

RETRIED: Final = frozenset((429, 503))
MAX_WAIT_S: Final = 30.0
"""The longest Retry-After that is obeyed."""

MAX_PROBLEMS: Final = 10

# A string is consumed whole, so that a `ts=` in the query of a media URL stays as it is.
_CMCD_TS = re.compile(rb'"(?:[^"\\\r\n]|\\.)*"|(?:(?<=[,\r\n])|\A)ts=([0-9]{1,15})(?=[,\r\n]|\Z)')


@dataclass(frozen=True)
class ReplaySettings:
    """How a replay treats the server."""

    timeout_s: float = 30.0
    """For one request, from the connection to the last byte of the answer."""
    concurrent_files: int = 8
    """Files that are replayed at once; the others wait for their turn."""
    attempts: int = 8
    """Tries of one POST before it is given up."""
    retry_within_s: float = 60.0
    """Time for all tries of one POST."""


@dataclass(frozen=True)
class Summary:
    """What came of a replay. `statuses` counts the last answer of each POST; `problems` shows a few of them."""

    files: int
    posts: int
    statuses: Mapping[int, int]
    retries: int
    unanswered: int
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every POST was answered with 2xx."""
        return sum(n for status, n in self.statuses.items() if 200 <= status < 300) == self.posts

    def __str__(self) -> str:
        answers = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items())) or "no answer"
        text = f"{self.posts} posts of {self.files} files: {answers}"
        text += f", {self.unanswered} without an answer" if self.unanswered else ""
        return text + (f" ({self.retries} retries)" if self.retries else "")


class ReplayError(ValueError):
    """Nothing can be replayed: the message says what to change."""


@dataclass(frozen=True)
class Post:
    """One POST of a recording, ready to be sent."""

    received_at_ms: int
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


def replay(
    files: Sequence[Path],
    *,
    to: str,
    key: str,
    now_ms: int,
    speed: float = 1.0,
    fast: bool = False,
    shift_to_now: bool = False,
    channel_id: str | None = None,
    settings: ReplaySettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Post the recordings to the product at `to`; `now_ms` is the time at the call.

    `speed` 2 takes half of the time, `fast` takes none between posts. `channel_id` is sent with each POST (else the
    one that was recorded). `progress` is told (posts done, posts in all). Raises `ReplayError` before anything is sent.
    """
    if urlsplit(to).scheme not in ("http", "https") or not urlsplit(to).netloc:
        raise ReplayError(f"{to!r} is no address: give one like http://127.0.0.1:8080")
    if not speed > 0:
        raise ReplayError(f"speed is {speed:g}: it must be above 0 (2 = twice as fast); or use --fast")
    if not files:
        raise ReplayError("no file was given: name at least one recording")
    pace = float("inf") if fast else speed
    recordings = [_Recording.scan(path, now_ms, pace, shift_to_now) for path in files]
    job = _Job(to.rstrip("/"), key, channel_id, pace, settings or ReplaySettings(), progress)
    job.total = sum(recording.posts for recording in recordings)
    return asyncio.run(job.run(recordings))


def read_posts(path: Path, shift_ms: int = 0) -> Iterator[Post]:
    """Yield the POSTs of a recording in the order of the file, each `ts` moved by `shift_ms`."""
    with path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
            where = f"{path.name}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise ReplayError(f"{where}: the line is longer than {MAX_LINE_BYTES} bytes")
            if not line.strip():
                continue
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ReplayError(f"{where}: this is no JSON object ({error})") from error
            if isinstance(record, dict) and "body" not in record and number == 1:
                continue
            yield _post(record, shift_ms, where)


def due_s(post: Post, first_ms: int, speed: float) -> float:
    """Return when a POST is due, in seconds after the first one of its file."""
    return max(0, post.received_at_ms - first_ms) / 1000 / speed


def _post(record: Any, shift_ms: int, where: str) -> Post:
    received = record.get("received_at_ms") if isinstance(record, dict) else None
    body = record.get("body") if isinstance(record, dict) else None
    if not isinstance(received, int) or not isinstance(body, str | list):
        raise ReplayError(
            f"{where}: a recorded beacon has `received_at_ms` (an integer) and `body` (text, or an array of events)"
        )
    headers_then = record.get("headers")
    recorded = {k.lower(): str(v) for k, v in headers_then.items()} if isinstance(headers_then, dict) else {}
    content_type = str(record.get("content_type") or recorded.get("content-type") or "application/json")
    headers = {"User-Agent": recorded["user-agent"]} if recorded.get("user-agent") else {}
    query = {name: values[-1] for name, values in parse_qs(str(record.get("query") or "")).items()}
    query = {name: query[name] for name in ("channel_id", "t") if name in query}
    if isinstance(record.get("t"), int | float):
        query["t"] = str(round(record["t"]))
    if shift_ms and query.get("t", "").isdecimal():
        query["t"] = str(int(query["t"]) + shift_ms)
    if isinstance(body, str) and "cmcd" in content_type:
        raw = body.encode()
        shifted = shift_cmcd(raw, shift_ms) if shift_ms else raw
        return Post(received, "/api/v1/events/cmcd", shifted, {**headers, "Content-Type": content_type}, query)
    raw = _native(body, shift_ms, where)
    return Post(received, "/api/v1/events/beacon", raw, {**headers, "Content-Type": content_type}, query)


def _native(body: str | list[Any], shift_ms: int, where: str) -> bytes:
    """Return the body of a native beacon. A text that is no array of events is sent as it is: it was, then."""
    if isinstance(body, str):
        if not shift_ms:
            return body.encode()
        try:
            body = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise ReplayError(f"{where}: the body is no JSON ({error}), so that no `ts` can be moved") from error
    if shift_ms and isinstance(body, list):
        for event in body:
            if isinstance(event, dict) and isinstance(event.get("ts"), int | float):
                event["ts"] += shift_ms
    return msgspec.json.encode(body)


def shift_cmcd(body: bytes, shift_ms: int) -> bytes:
    """Move every `ts` of a CMCD body, and nothing else."""
    return _CMCD_TS.sub(lambda m: b"ts=%d" % (int(m[1]) + shift_ms) if m[1] else m[0], body)


@dataclass(frozen=True)
class _Recording:
    """One file: where its clock starts, and by how much its times are moved."""

    path: Path
    posts: int
    first_ms: int
    shift_ms: int

    @classmethod
    def scan(cls, path: Path, now_ms: int, speed: float, shift_to_now: bool) -> _Recording:
        """Read the file once: a mistake in its last line is told before its first one is sent."""
        posts, first_ms, last_ms = 0, 0, 0
        try:
            for post in read_posts(path):
                first_ms = first_ms if posts else post.received_at_ms
                last_ms = max(last_ms, post.received_at_ms)
                posts += 1
        except OSError as error:
            raise ReplayError(f"{path} cannot be read: {error.strerror}") from error
        if not posts:
            raise ReplayError(f"{path} holds no beacon: each line is a JSON object with `received_at_ms` and `body`")
        ends_ms = now_ms + round((last_ms - first_ms) / speed)
        return cls(path, posts, first_ms, ends_ms - last_ms if shift_to_now else 0)


class _Refused(Exception):  # noqa: N818
    """The server asked to come again."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"answered {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def _again(error: Exception) -> bool | float:
    """Tell whether to try again, and after which time where the server names one."""
    if isinstance(error, _Refused):
        return True if error.retry_after_s is None else min(error.retry_after_s, MAX_WAIT_S)
    return isinstance(error, aiohttp.ClientConnectionError | TimeoutError)


@dataclass
class _Job:
    """One replay under way."""

    to: str
    key: str
    channel_id: str | None
    speed: float
    settings: ReplaySettings
    progress: Callable[[int, int], None] | None
    total: int = 0
    done: int = 0
    retries: int = 0
    unanswered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    async def run(self, recordings: Sequence[_Recording]) -> Summary:
        turn = asyncio.Semaphore(self.settings.concurrent_files)
        async with asyncio.TaskGroup() as group:
            for recording in recordings:
                group.create_task(self._file(turn, recording))
        counts = dict(sorted(self.statuses.items()))
        return Summary(len(recordings), self.done, counts, self.retries, self.unanswered, tuple(self.problems))

    async def _file(self, turn: asyncio.Semaphore, recording: _Recording) -> None:
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout_s)
        # One connection a file: it stays with one worker, so that the order holds in the log as well.
        async with (
            turn,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout) as session,
        ):
            clock = asyncio.get_running_loop().time
            start = clock()
            for post in read_posts(recording.path, recording.shift_ms):
                await asyncio.sleep(max(0.0, start + due_s(post, recording.first_ms, self.speed) - clock()))
                await self._send(session, post, recording.path.name)
                self.done += 1
                if self.progress:
                    self.progress(self.done, self.total)

    async def _send(self, session: aiohttp.ClientSession, post: Post, name: str) -> None:
        problem = ""
        try:
            async for attempt in stamina.retry_context(
                on=_again, attempts=self.settings.attempts, timeout=self.settings.retry_within_s
            ):
                self.retries += attempt.num > 1
                with attempt:
                    status, problem = await self._once(session, post)
        except _Refused as refused:
            status, problem = refused.status, str(refused)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.unanswered += 1
            status, problem = 0, f"no answer ({type(error).__name__}: {error})"
        if status:
            self.statuses[status] += 1
        if problem and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{name}, received_at_ms {post.received_at_ms}: {problem}")

    async def _once(self, session: aiohttp.ClientSession, post: Post) -> tuple[int, str]:
        """Return the status and, for a refusal that is final, what the server said. Raises `_Refused`."""
        query = {**post.query, "key": self.key}
        if self.channel_id is not None:
            query["channel_id"] = self.channel_id
        async with session.post(self.to + post.path, params=query, data=post.body, headers=post.headers) as answer:
            text = await answer.text(errors="replace")
            if answer.status in RETRIED:
                raise _Refused(answer.status, _seconds(answer.headers.get("Retry-After")))
            return answer.status, f"answered {answer.status}: {text[:500]}" if answer.status >= 300 else ""


def _seconds(retry_after: str | None) -> float | None:
    """Return the number of seconds of a Retry-After header; a date is left to the backoff."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None
