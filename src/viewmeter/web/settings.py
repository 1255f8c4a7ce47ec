"""Settings of the web room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WebSettings:
    """Bounds of the HTTP API. Each bound has an answer: 503 `busy`, 504 `timeout`, 413."""

    query_threads: int = 2
    """Queries that run at once. DuckDB spreads each over the cores by itself, so more than cores give nothing."""
    waiting_queries: int = 200
    """Queries that may wait for a thread; more are answered 503 `busy`."""
    query_timeout_s: float = 30.0
    """How long a query may take, waiting included, before it is answered 504 `timeout`."""
    flush_timeout_s: float = 45.0
    """How long `admin/flush` waits for the stream and batch jobs; less than a proxy waits for a silent answer."""
    job_timeout_s: float = 55.0
    """How long `admin/jobs` waits for a run; it goes on by itself and `GET /api/v1/admin/jobs` shows how it ended."""
    stream_every_s: float = 1.0
    """Pause between two events of the live stream; at most 2."""
    heartbeat_every_s: float = 15.0
    """Pause between two comments that keep a live stream open."""
    max_streams: int = 2_000
    """Live streams that may be open at once; more are answered 503 `too_many_streams`."""
    max_feeds: int = 500
    """Different scopes that may be streamed at once: each is computed once a tick, whoever watches it."""
    max_body_bytes: int = 262_144
    """Largest request body of the API (events have a bound of their own)."""
    access_log: bool = True
    """Log each request: method, route, status, time, key id. Never an address, a query string or a body."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.stream_every_s <= 2.0:
            raise ValueError(f"stream_every_s is {self.stream_every_s:g}; the live stream promises 0.05 to 2 s")
        for name in ("query_threads", "waiting_queries", "max_streams", "max_feeds", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
