"""What a scenario runs on: anything that takes beacons and answers questions.

In: `Beacon`s in the order of arrival, then `Question`s. Out: numbers (None over nothing). Promised: one
body of scenarios for the oracle, the rule, the embedded engine and HTTP. The oracle is the first subject,
and is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from viewmeter.model.events import UNKNOWN, WireEvent
from viewmeter.testing import oracle
from viewmeter.testing.oracle_metrics import BITRATE_BUCKETS, METRICS, metrics, total

WIRE_FIELDS: Final[tuple[str, ...]] = WireEvent.__struct_fields__
ENRICHED: Final = ("country", "region", "city", "asn", "device_type", "os", "browser", "is_bot")
SAID: Final = ("player", "stream_type")
SKEW_MS: Final = 10_000
SAMPLE_MS: Final = 10_000
GAUGES: Final = ("concurrent_viewers", "concurrent_views", "peak_concurrent_viewers", "unique_viewers_exact")


@dataclass(frozen=True)
class Beacon:
    """One POST: events of one tenant, received together.

    `events` hold wire fields (`ts` as the player said it) and, beside them, those of ENRICHED that the
    collector would find out from address and user agent. A subject that speaks HTTP sends `wire()` and has
    to arrange for the enrichment; every other one takes `enriched()`.
    """

    tenant_id: str
    received_at: int
    events: Sequence[Mapping[str, Any]]
    sent_at: int | None = None

    def wire(self) -> list[dict[str, Any]]:
        """Return the events as the player sends them."""
        return [{k: v for k, v in event.items() if k not in ENRICHED} for event in self.events]

    def enriched(self) -> list[dict[str, Any]]:
        """Return the events as the collector writes them: skew corrected, viewer hashed, words filled."""
        skew = 0 if self.sent_at is None else self.received_at - self.sent_at
        shift = skew if abs(skew) > SKEW_MS else 0
        server = {"tenant_id": self.tenant_id, "received_at": self.received_at}
        words = dict.fromkeys((*ENRICHED, *SAID, "cdn"), UNKNOWN) | {"is_bot": False}
        known = {*WIRE_FIELDS, *words}
        return [
            {
                **words,
                **{k: v for k, v in event.items() if k in known and v is not None},
                **server,
                "ts": round(event["ts"]) + shift,
                "viewer_hash": viewer_hash(self.tenant_id, event.get("viewer_id")),
            }
            for event in self.events
        ]


def viewer_hash(tenant_id: str, viewer_id: str | None) -> int:
    """Return a stable 64-bit stand-in for the collector's salted hash."""
    digest = hashlib.blake2b(f"{tenant_id}\0{viewer_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class Question:
    """One number asked for: a metric or measure over a scope, views of some dimension values, and a range.

    None in the scope: all of them (no tenant: the platform). `filters`: dimension to value; `is_bot`
    defaults to "false" ("any" for both); `bitrate_bucket` is a name of BITRATE_BUCKETS or "unknown".
    `at_ms`: the instant of a concurrency metric; otherwise the half-open range `[start_ms, end_ms)`.
    """

    metric: str
    tenant_id: str | None = None
    channel_id: str | None = None
    video_id: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    start_ms: int = 0
    end_ms: int = 1 << 62
    at_ms: int | None = None


class UnseenError(Exception):
    """The subject does not see so finely: an engine's rows are a minute wide, its samples 10 s apart."""


class Subject(Protocol):
    """Anything a scenario can be run on.

    X1  Beacons are fed in the order of arrival; two with the same `received_at` in the order of the calls.
    X2  After settle(now) every answer holds all that was fed, and silence up to `now` has been noticed.
    X3  answer() does not change any later answer.
    """

    def feed(self, beacon: Beacon) -> None:
        """Take one beacon, as if it arrived at its `received_at`."""

    def settle(self, now_ms: int) -> None:
        """Let everything fed become visible, with the clock at `now_ms`."""

    def answer(self, question: Question) -> float | None:
        """Return the number, None over nothing. Raises UnseenError where it does not see so finely."""


class OracleSubject:
    """The oracle as a subject: keeps every event, recomputes at each settling."""

    def __init__(self) -> None:
        self._events: list[oracle.Event] = []
        self._facts: list[oracle.Increment] = []
        self._first: dict[oracle.Key, oracle.Event] = {}
        self._spans: dict[oracle.Key, list[tuple[int, int]]] = {}

    def feed(self, beacon: Beacon) -> None:
        """Remember the events."""
        self._events += beacon.enriched()

    def settle(self, now_ms: int) -> None:
        """Compute every fact anew."""
        self._facts = oracle.increments(self._events, now_ms)
        distinct = {key: events for key, (events, _) in oracle.views(self._events).items()}
        self._first = {key: events[0] for key, events in distinct.items()}
        self._spans = {key: oracle.presence(events) for key, events in distinct.items()}

    def answer(self, question: Question) -> float | None:
        """Return the number by definition, over all views in scope."""
        inside = {key for key, event in self._first.items() if in_scope(event, question)}
        if question.metric in ("concurrent_viewers", "concurrent_views"):
            if question.at_ms is None:
                raise ValueError(f"{question.metric} is asked at an instant")
            return self._present(inside, question.at_ms, question.metric == "concurrent_viewers")
        if question.metric == "peak_concurrent_viewers":
            return max((self._present(inside, t, True) for t in self._samples(inside, question)), default=0)
        facts = [f for f in self._facts if f.view in inside and _matches(f, question)]
        if question.metric == "unique_viewers_exact":
            return len({viewer(self._first[f.view]) for f in facts if f.measure == "plays"})
        return metrics(total(facts))[question.metric]

    def _present(self, inside: set[oracle.Key], at_ms: int, viewers: bool) -> int:
        here = [key for key in inside if any(a <= at_ms < b for a, b in self._spans[key])]
        return (
            len({(e["channel_id"], e["video_id"], viewer(e)) for e in map(self._first.get, here) if e})
            if (viewers)
            else len(here)
        )

    def _samples(self, inside: set[oracle.Key], question: Question) -> Iterator[int]:
        spans = [span for key in inside for span in self._spans[key]]
        start = max(question.start_ms, min((a for a, _ in spans), default=0))
        end = min(question.end_ms, max((b for _, b in spans), default=0))
        return iter(range(-(-start // SAMPLE_MS) * SAMPLE_MS, end, SAMPLE_MS))


def viewer(event: oracle.Event) -> tuple[Any, Any]:
    """Return who watches: viewer ids live inside their tenant."""
    return event["tenant_id"], event["viewer_hash"]


def in_scope(first: oracle.Event, question: Question) -> bool:
    """Return whether a view belongs to the question: its dimensions are those of its first event."""
    wanted = {
        "tenant_id": question.tenant_id,
        "channel_id": question.channel_id,
        "video_id": question.video_id,
    }
    scope = all(value is None or first[name] == value for name, value in wanted.items())
    bots = question.filters.get("is_bot", "false")
    frozen = {k: v for k, v in question.filters.items() if k not in ("cdn", "bitrate_bucket", "is_bot")}
    return (
        scope
        and bots in ("any", str(bool(first["is_bot"])).lower())
        and all(first.get(name, UNKNOWN) == value for name, value in frozen.items())
    )


def _matches(fact: oracle.Increment, question: Question) -> bool:
    """Return whether a fact lies in the range, and the CDN and bitrate of its interval in the filters."""
    bucket = "unknown"
    if fact.bitrate_kbps:
        bucket = BITRATE_BUCKETS[sum(edge <= fact.bitrate_kbps for edge in oracle.BITRATE_EDGES) - 1]
    return (
        question.start_ms <= fact.instant_ms < question.end_ms
        and question.filters.get("cdn", fact.cdn) == fact.cdn
        and question.filters.get("bitrate_bucket", bucket) == bucket
    )


KNOWN_METRICS: Final = frozenset({*metrics({}), *METRICS, *GAUGES})
"""Every name a scenario may ask for."""
