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

import structlog

from viewmeter.collector import answers, metrics
from viewmeter.collector.answers import Answer, Headers, ProblemError
from viewmeter.collector.bodies import BREAKS, Bodies
from viewmeter.collector.columns import Beacon, Terms
from viewmeter.collector.commit import GroupCommit, OverloadedError
from viewmeter.collector.deadletters import DeadLetterWriter
from viewmeter.collector.dialects import MAX_EVENTS, Dialect, Rejection, UndecodableError
from viewmeter.collector.intake import own_channel, take, terms_of, unfollowed
from viewmeter.collector.places import Places
from viewmeter.collector.rates import Buckets
from viewmeter.collector.recent import Recent
from viewmeter.collector.rejected import RejectedEvents
from viewmeter.collector.request import Admitted, Door
from viewmeter.collector.senders import Sender, Senders
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


_current_task = cast("Callable[[asyncio.AbstractEventLoop | None], asyncio.Task[Any]]", asyncio.current_task)


class _Route(NamedTuple):
    dialect: str
    content_types: frozenset[str]


_ROUTES: Final = {
    PREFIX + "beacon": _Route("native", frozenset({"application/json", "text/plain"})),
    PREFIX + "cmcd": _Route("cmcd", frozenset({"application/cmcd", "text/cmcd", "text/plain"})),
}


_Accepted = tuple[asyncio.Future[None] | None, int, Sequence[Rejection], int]
"""What became of a body: a future that is done when its events are in the log (None: there are none), how many they
are, what was rejected, and when it was received."""


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
        self._monotonic_s = monotonic_s
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
        self._commit = GroupCommit(self._log_writer, self._settings, loop, self._monotonic_s)
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

        Neither the body nor its events have a name in here, and the headers lose theirs: what waits for the disk must
        not keep them alive. (When it did, each beacon found its memory cold, and cost 30 µs more.)
        """
        self._in_flight += 1
        admitted: Admitted | None = None
        answer: Answer | None
        try:
            try:
                passed = self._door.passes(scope)
                if passed is None:
                    headers = scope.headers  # a copy each time
                    route = self._route_of(scope)
                    admitted, sent_at = self._door.admit(scope, headers, route.content_types)
                    wants_counts = headers.get("prefer") is not None and _wants_counts(headers)
                    reading = self._bodies.read(headers, wire, admitted.headers)
                    del headers
                else:
                    admitted, sent_at = passed
                    route = _ROUTES[admitted.path]
                    wants_counts = False
                    reading = wire()
                # Without the loop, Python 3.11 asks the kernel for the process id: 2 µs.
                task = _current_task(self._loop)
                self._reading[task] = self._ticks  # `_tick` cuts senders off that take too long
                try:
                    accepted = self._accept(route, admitted, sent_at, await reading)
                except BREAKS as error:
                    raise ProblemError(self._bodies.broken(error, admitted.headers)) from None
                finally:
                    del self._reading[task], reading
                durable, events, rejected, _ = accepted
                if rejected:
                    await self._keep_rejected(route, admitted, accepted)
                if durable is None:
                    answer = self._nothing_accepted(route, rejected, admitted.headers)
                else:
                    await durable
                    self._tally.accepted += events
                    answer = answers.counts(events, rejected, admitted.headers) if wants_counts else None
            except Exception as error:  # noqa: BLE001  each has its answer
                answer = self._refused(error, admitted)
            if answer is not None:
                self._write(wire, answer, admitted)
            elif admitted is not None:  # as it is then
                self._tally.no_content += 1
                wire.response_empty(204, admitted.no_content)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0 and self._idle is not None:
                self._idle.set()

    def _is_full(self) -> bool:
        """Say whether no beacon should be read any more: the largest one would not find room."""
        commit = self._commit
        return commit is not None and commit.pending_events >= self._full_at

    def _route_of(self, scope: Scope) -> _Route:
        """Return where a beacon was posted. Raises `ProblemError`, with the answer to any other request."""
        route = _ROUTES.get(scope.path)
        if route is None:
            detail = "the collector answers at /api/v1/events/beacon and /api/v1/events/cmcd"
            raise ProblemError(answers.refusal("not_found", detail, answers.ANY_ORIGIN))
        method = scope.method
        if method == "POST":
            return route
        if method == "OPTIONS":
            raise ProblemError(self._door.preflight(scope))
        detail = f"{method[:20]} is not supported; send beacons with POST"
        raise ProblemError(answers.refusal("method_not_allowed", detail, answers.ANY_ORIGIN))

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
        sender = self._senders.of(admitted, received_at)
        commit = cast("GroupCommit", self._commit)
        if route.dialect == "native":
            # A body that is plain and wholly valid goes to the disk undecoded.
            terms = admitted.terms
            if terms is None or terms.sender is not sender:
                terms = self._terms_of(admitted, sender)
            plain = commit.take(body, terms, sent_at, received_at)
            if plain is not None:
                durable, (count, ignored, corrected) = plain
                if ignored or corrected:
                    self._tally.ignored_fields += ignored
                    self._tally.clock_corrected += corrected
                return durable, count, (), received_at
        key, query, hashes = admitted.key, admitted.query, self._hashes_of(admitted.key)
        own = own_channel(key.channels)
        channel = query.get("channel_id") if own is None else own
        player = _player_name(query["player"]) if "player" in query else None
        decoded = self._dialects[route.dialect](body, channel_id=channel, player=player)
        self._tally.ignored_fields += decoded.ignored_fields
        if decoded.quirks:
            self._tally.quirks.update(decoded.quirks)
        taken = take(decoded, key.channels, sent_at, received_at, self._settings)
        if not taken.events:
            return None, 0, taken.rejected, received_at
        self._tally.clock_corrected += taken.shift_ms != 0
        events = unfollowed(taken.events) if admitted.anonymous else taken.events
        beacon = Beacon(hashes, sender, received_at, taken.shift_ms, events)
        durable = commit.submit(beacon)
        return durable, beacon.events, taken.rejected, received_at

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
        _, _, rejected, received_at = accepted
        for rejection in rejected:
            self._tally.rejected[rejection.code] += 1
        player = _player_name(admitted.query.get("player", ""))
        await self._rejected.keep(route.dialect, admitted, rejected, received_at, player)

    def _terms_of(self, admitted: Admitted, sender: Sender) -> Terms:
        """Return what holds for all bodies of a sender, and keep it with what is remembered of it."""
        channels = admitted.key.channels
        admitted.terms = terms_of(self._hashes_of(admitted.key), sender, channels, self._settings)
        return admitted.terms

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
    preferences = ",".join(headers.get_all("prefer")).lower()
    return "return=representation" in preferences.replace(" ", "").replace('"', "")


def _dialect(name: str) -> Dialect:
    return cast("Dialect", importlib.import_module(f"viewmeter.collector.dialects.{name}").decode)
