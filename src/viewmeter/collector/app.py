"""The collector as an RSGI application: `POST /api/v1/events/{beacon,cmcd}`.

In: requests. Out: the answers of API.md section 2. Promised: 2xx only for what the log holds; rejected events go to the
dead letters before the answer where the disk lets them, and the answer comes anyway where it does not. Not done here:
any other address (the gateway around this application hands them to the engine).
"""

from __future__ import annotations

import asyncio
import importlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec
import structlog

from viewmeter.collector import answers, metrics
from viewmeter.collector.answers import Answer, Headers, ProblemError
from viewmeter.collector.bodies import BREAKS, Bodies
from viewmeter.collector.columns import Beacon
from viewmeter.collector.commit import GroupCommit, OverloadedError
from viewmeter.collector.deadletters import DeadLetterWriter
from viewmeter.collector.dialects import MAX_EVENTS, Dialect, Rejection, UndecodableError
from viewmeter.collector.intake import posted, take, unfollowed
from viewmeter.collector.places import Places
from viewmeter.collector.rates import Buckets
from viewmeter.collector.recent import Recent
from viewmeter.collector.rejected import RejectedEvents
from viewmeter.collector.request import Admitted, Door
from viewmeter.collector.senders import Senders
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import DailySalt, TenantHashes
from viewmeter.collector.wire import RequestHeaders, Scope, Wire
from viewmeter.eventlog.protocol import LogUnavailableError, LogWriter
from viewmeter.metadata.keys import Key, KeyDirectory, Tenant

_log = structlog.get_logger(__name__)

PREFIX: Final = "/api/v1/events/"
"""Addresses below it are the collector's."""

_TICK_S: Final = 0.5
_MAX_PLAYER_CHARS: Final = 64
_TENANTS_REMEMBERED: Final = 1_000


class _Route(NamedTuple):
    dialect: str
    content_types: frozenset[str]


_ROUTES: Final = {
    PREFIX + "beacon": _Route("native", frozenset({"application/json", "text/plain"})),
    PREFIX + "cmcd": _Route("cmcd", frozenset({"application/cmcd", "text/cmcd", "text/plain"})),
}


class _Accepted(msgspec.Struct, gc=False):
    """What became of a body. `durable` is done when its events are in the log; None: there are none."""

    durable: asyncio.Future[None] | None
    events: int
    rejected: Sequence[Rejection]
    received_at: int


class CollectorApp:
    """Serves the ingestion addresses of one worker.

    keys: who may send. log: the worker's partition. dead_letters: the worker's file. run_folder: where workers share
    the daily salt. clock: now in ms since the epoch. places: where addresses are; by default as the settings say.
    buckets: where workers count requests together; None: this one counts for itself.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        keys: KeyDirectory,
        log: LogWriter,
        dead_letters: DeadLetterWriter,
        run_folder: Path,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
        places: Places | None = None,
        buckets: Buckets | None = None,
    ) -> None:
        self._settings = settings
        self._log_writer = log
        self._clock = clock
        self._door = Door(settings, keys, monotonic_s, self._is_full, buckets)
        self._bodies = Bodies(settings)
        found = places or Places(settings.city_database, settings.asn_database)
        self._senders = Senders(found, DailySalt(run_folder), settings.cached_senders)
        # A tenant is remembered with its secret, so that a rotated secret is another tenant to us.
        self._hashes: Recent[tuple[str, bytes], TenantHashes] = Recent(self._make_hashes, _TENANTS_REMEMBERED)
        self._dialects = {route.dialect: _dialect(route.dialect) for route in _ROUTES.values()}
        self._period = self._senders.period
        self._tally = metrics.Tally()
        self._rejected = RejectedEvents(dead_letters, self._senders, self._hashes_of, settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commit: GroupCommit | None = None
        self._reading: dict[asyncio.Task[Any], int] = {}
        self._ticks = 0
        self._max_ticks_reading = math.ceil(settings.body_timeout_s / _TICK_S) + 1
        self._in_flight = 0
        self._full_at = max(1, settings.max_pending_events - MAX_EVENTS)
        self._idle: asyncio.Event | None = None
        self._closed = False

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin on the server's event loop."""
        self._loop = loop
        self._commit = GroupCommit(self._log_writer, self._settings, loop)
        self._tick()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """End. `drain` comes before, so there is nothing left to lose."""

    async def drain(self) -> None:
        """Answer what is under way, then release the log. New beacons get 503. Called when the server stops."""
        if self._commit is None or self._closed:
            return
        self._closed = True
        self._idle = asyncio.Event()
        if self._in_flight == 0:
            self._idle.set()
        try:
            await asyncio.wait_for(self._idle.wait(), self._settings.drain_s)
        except TimeoutError:
            _log.warning("drain_timed_out", in_flight=self._in_flight)
        await self._commit.close()
        self._rejected.close()
        self._log_writer.close()
        self._tally.flush()

    async def __rsgi__(self, scope: Scope, wire: Wire) -> None:
        """Answer one request.

        Neither the body nor its events have a name in here: what waits for the disk must not keep them alive. (When it
        did, each beacon found its memory cold, and cost 30 µs more.)
        """
        self._in_flight += 1
        admitted: Admitted | None = None
        try:
            try:
                headers = scope.headers  # a copy each time
                route = _ROUTES.get(scope.path)
                if route is None or scope.method != "POST":
                    raise ProblemError(self._not_taken(scope, route))
                admitted, sent_at = self._door.admit(scope, headers, route.content_types)
                # Without the loop, Python 3.11 asks the kernel for the process id: 2 µs.
                task = cast("asyncio.Task[Any]", asyncio.current_task(self._loop))
                self._reading[task] = self._ticks  # `_tick` cuts senders off that take too long
                try:
                    accepted = self._accept(
                        route, admitted, sent_at, await self._bodies.read(headers, wire, admitted.headers)
                    )
                except BREAKS as error:
                    raise ProblemError(self._bodies.broken(error, admitted.headers)) from None
                finally:
                    del self._reading[task]
                if accepted.rejected:
                    await self._keep_rejected(route, admitted, accepted)
                if accepted.durable is not None:
                    await accepted.durable
                answer = self._taken(route, accepted, headers, admitted.headers)
            except Exception as error:  # noqa: BLE001  each has its answer
                answer = self._refused(error, admitted)
            self._write(wire, answer, admitted)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0 and self._idle is not None:
                self._idle.set()

    def _is_full(self) -> bool:
        """Say whether no beacon should be read any more: the largest one would not find room."""
        commit = self._commit
        return commit is not None and commit.pending_events >= self._full_at

    def _not_taken(self, scope: Scope, route: _Route | None) -> Answer:
        """Return the answer to a request that is not the POST of a beacon."""
        if route is None:
            detail = "the collector answers at /api/v1/events/beacon and /api/v1/events/cmcd"
            return answers.refusal("not_found", detail, answers.ANY_ORIGIN)
        method = scope.method
        if method == "OPTIONS":
            return self._door.preflight(scope)
        detail = f"{method[:20]} is not supported; send beacons with POST"
        return answers.refusal("method_not_allowed", detail, answers.ANY_ORIGIN)

    def _taken(self, route: _Route, accepted: _Accepted, request: RequestHeaders, headers: Headers) -> Answer:
        """Return the answer to a beacon that was understood, and is durable."""
        if accepted.durable is None:
            return self._nothing_accepted(route, accepted.rejected, headers)
        self._tally.accepted += accepted.events
        if _wants_counts(request):
            return answers.counts(accepted.events, accepted.rejected, headers)
        return answers.no_content(headers)

    def _refused(self, error: Exception, admitted: Admitted | None) -> Answer:
        """Return the answer to what went wrong."""
        headers = admitted.headers if admitted is not None else answers.ANY_ORIGIN
        match error:
            case ProblemError():
                return error.answer
            case UndecodableError():
                return answers.refusal(error.code, error.detail, headers)
            case OverloadedError():
                return self._later("overloaded", headers)
            case LogUnavailableError():
                return self._later("log_unavailable", headers)
        # The client gets an answer, the operator a trace.
        _log.error("beacon_failed", error=type(error).__name__, exc_info=error)
        return answers.refusal("internal", "", answers.ANY_ORIGIN)

    def _write(self, wire: Wire, answer: Answer, admitted: Admitted | None) -> None:
        status, headers, body, code = answer
        self._tally.statuses[status] += 1
        if status == 204:
            wire.response_empty(status, headers)
            return
        if code:
            self._tally.refused[code] += 1
        if admitted is not None:
            headers = [*headers, *self._door.allowance(admitted)]
        wire.response_bytes(status, headers, body)

    def _accept(self, route: _Route, admitted: Admitted, sent_at: str | None, body: bytes) -> _Accepted:
        """Decode and check a body, and hand what is good in it to the disk."""
        received_at = self._clock()
        if self._closed:
            raise ProblemError(self._later("shutting_down", admitted.headers))
        hashes = admitted.hashes
        if hashes is None:
            hashes = admitted.hashes = self._hashes_of(admitted.key)
        sender = self._senders.of(admitted, received_at)
        commit = cast("GroupCommit", self._commit)
        key, query = admitted.key, admitted.query
        if route.dialect == "native":
            # A body that is plain and wholly valid goes to the disk undecoded.
            post = posted(hashes, sender, received_at, key.channels, sent_at, self._settings)
            plain = commit.take(body, post)
            if plain is not None:
                self._tally.ignored_fields += plain[2]
                self._tally.clock_corrected += post.shift_ms != 0
                return _Accepted(plain[0], plain[1], (), received_at)
        channel = key.channels[0] if key.channels is not None and len(key.channels) == 1 else query.get("channel_id")
        player = _player_name(query["player"]) if "player" in query else None
        decoded = self._dialects[route.dialect](body, channel_id=channel, player=player)
        self._tally.ignored_fields += decoded.ignored_fields
        if decoded.quirks:
            self._tally.quirks.update(decoded.quirks)
        taken = take(decoded, key.channels, sent_at, received_at, self._settings)
        if not taken.events:
            return _Accepted(None, 0, taken.rejected, received_at)
        self._tally.clock_corrected += taken.shift_ms != 0
        events = unfollowed(taken.events) if admitted.anonymous else taken.events
        beacon = Beacon(hashes, sender, received_at, taken.shift_ms, events)
        durable = commit.submit(beacon)
        return _Accepted(durable, beacon.events, taken.rejected, received_at)

    @staticmethod
    def _nothing_accepted(route: _Route, rejected: Sequence[Rejection], headers: Headers) -> Answer:
        if rejected:
            return answers.invalid_events(rejected, headers)
        if route.dialect == "native":
            return answers.refusal("empty_beacon", "", headers)
        return answers.no_content(headers)  # a CMCD body may hold nothing that is an event

    def _later(self, code: str, headers: Headers) -> Answer:
        return answers.refusal(code, "", headers, retry_after_s=self._settings.retry_after_s)

    async def _keep_rejected(self, route: _Route, admitted: Admitted, accepted: _Accepted) -> None:
        for rejection in accepted.rejected:
            self._tally.rejected[rejection.code] += 1
        player = _player_name(admitted.query.get("player", ""))
        await self._rejected.keep(route.dialect, admitted, accepted.rejected, accepted.received_at, player)

    def _hashes_of(self, key: Key) -> TenantHashes:
        return self._hashes[(key.tenant.id, key.tenant.viewer_secret)]

    def _make_hashes(self, key: tuple[str, bytes]) -> TenantHashes:
        tenant_id, secret = key
        return TenantHashes(Tenant(tenant_id, "", secret), self._settings.cached_views)

    def _tick(self) -> None:
        """Twice a second: hand the counts over, forget addresses in time, cut slow senders off."""
        self._tally.flush()
        self._tidy()
        self._ticks += 1
        latest = self._ticks - self._max_ticks_reading
        for task in [task for task, since in self._reading.items() if since < latest]:
            task.cancel("the body took too long")
        if not self._closed:
            cast("asyncio.AbstractEventLoop", self._loop).call_later(_TICK_S, self._tick)

    def _tidy(self) -> None:
        """Forget who sent, whether or not somebody sends now. A disk that fails must not end the ticking."""
        try:
            self._senders.tidy(self._clock())
            if self._period is not self._senders.period:
                self._period = self._senders.period
                self._door.forget()
            self._rejected.tidy(self._clock())
        except OSError as error:
            _log.error("salt_not_destroyed", error=str(error))


def _player_name(text: str) -> str | None:
    """Return `?player=` as a name: the player of a dialect whose records name none (CMCD)."""
    return text.replace("\0", "")[:_MAX_PLAYER_CHARS].strip() or None


def _wants_counts(headers: RequestHeaders) -> bool:
    if headers.get("prefer") is None:
        return False
    preferences = ",".join(headers.get_all("prefer")).lower()
    return "return=representation" in preferences.replace(" ", "").replace('"', "")


def _dialect(name: str) -> Dialect:
    return cast("Dialect", importlib.import_module(f"viewmeter.collector.dialects.{name}").decode)
