"""Who sends a beacon, and whether they may.

In: an RSGI scope. Out: `Admitted`, and when the beacon was sent. Promised: the cheap refusals come first (a full queue,
rate of the network, key, origin, type, rate of the key), and no body is read for them. What a request says beside its
body and its time is the same in all beacons of a player, so what was found of it is remembered; only the rates, and
whether keys have changed, are looked at each time (in C, where it was built: compiled/door.c). Not done here: the body
(`bodies`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from viewmeter.collector import answers
from viewmeter.collector.agents import HINTS, NO_HINTS, Hints, hints_of
from viewmeter.collector.answers import Headers, ProblemError
from viewmeter.collector.bodies import small_bytes
from viewmeter.collector.columns import Terms
from viewmeter.collector.decoder import CompiledTurnstile
from viewmeter.collector.proxies import ClientAddress, bare
from viewmeter.collector.rates import Buckets, RateLimit, network
from viewmeter.collector.recent import Recent
from viewmeter.collector.senders import Sender
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.wire import RequestHeaders, Scope
from viewmeter.metadata.keys import Key, KeyDirectory, KeysUnavailableError, why_unknown

_MAX_QUERY_CHARS: Final = 4_096
_MAX_REMEMBERED_CHARS: Final = 2_048
"""Who says more of itself is looked up each time: headers may have 64 KiB, and what is remembered must stay small."""
_SAID: Final = ("user-agent", "content-type", "origin", "authorization", "sec-gpc", "dnt", *HINTS)
"""Headers that make a sender another one."""
_CREDENTIALS: Final = 3 + _SAID.index("authorization")
_LIMITED: Final = {
    "address": "the network of this address (its /24, or its /64 where it is IPv6)",
    "key": "this key",
}


class Admitted:
    """A sender that may send; one object for all its beacons, while it is remembered.

    query: without `t`. headers: they go on every answer; no_content: on a 204. anonymous: it asked not to be followed.
    version: that of the directory in which its key was found. terms, sender, period: what was found of it by those who
    need it (`Senders.of`).
    """

    __slots__ = (
        "address",
        "anonymous",
        "headers",
        "hints",
        "key",
        "key_text",
        "no_content",
        "path",
        "period",
        "query",
        "sender",
        "terms",
        "user_agent",
        "version",
    )

    def __init__(
        self,
        key: Key,
        address: str,
        user_agent: str,
        query: dict[str, str],
        headers: Headers,
        hints: Hints = NO_HINTS,
        anonymous: bool = False,
        key_text: str = "",
        path: str = "",
        version: object = None,
    ) -> None:
        self.key = key
        self.key_text = key_text
        self.address = address
        self.user_agent = user_agent
        self.query = query
        self.headers = headers
        self.hints = hints
        self.anonymous = anonymous
        self.path = path
        self.version = version
        self.no_content = answers.no_content(headers).headers
        self.terms: Terms | None = None
        self.sender: Sender | None = None
        self.period: object = None


Passes = Callable[[Scope], tuple[Admitted, str | None] | None]


class Door:
    """Admits requests.

    passes: returns what `admit` would for a sender who is remembered, whose body is small and not compressed, and who
    wants no counts; None: ask `admit`, nothing was counted.

    monotonic_s: the clock that all workers share. is_full: whether so much waits for the disk that nothing more is
    taken. buckets: where the workers count together; None: this process counts for itself.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        keys: KeyDirectory,
        monotonic_s: Callable[[], float],
        is_full: Callable[[], bool] = bool,
        buckets: Buckets | None = None,
    ) -> None:
        self._keys = keys
        self._is_full = is_full
        self._monotonic_s = monotonic_s
        self._retry_after_s = settings.retry_after_s
        self._gpc, self._dnt = settings.respect_gpc, settings.respect_dnt
        self._addresses = ClientAddress(settings.trusted_proxies)
        self._known: Recent[tuple[str | None, ...], Admitted] = Recent(None, settings.cached_senders)
        burst = settings.rate_burst_seconds
        shared = buckets or Buckets()
        self._of_address = RateLimit("address", settings.requests_per_second_per_address, burst, shared, network)
        self._of_key = RateLimit("key", settings.requests_per_second_per_key, burst, shared)
        window_s = max(1, math.ceil(burst))  # the header knows whole seconds only
        self._policy = ", ".join(
            f'"{name}";q={limit.per_second * window_s};w={window_s}'
            for name, limit in (("address", self._of_address), ("key", self._of_key))
        )
        self.passes = self._turnstile(settings) if settings.compiled_decoder else _nobody

    def _turnstile(self, settings: CollectorSettings) -> Passes:
        if CompiledTurnstile is None:
            return _nobody
        return CompiledTurnstile(
            self._known,
            _SAID,
            self._keys,
            self._is_full,
            self._monotonic_s,
            self._address_of,
            apart_from_time,
            self._of_address.parts,
            self._of_key.parts,
            small_bytes(settings),
            _MAX_QUERY_CHARS,
            not self._addresses.uses_forwarded,
        ).admit

    def admit(
        self, scope: Scope, headers: RequestHeaders, content_types: frozenset[str]
    ) -> tuple[Admitted, str | None]:
        """Return who sends, and `t`. `headers` are those of `scope`, which copies them each time.

        Raises `ProblemError`.
        """
        if self._is_full():
            raise ProblemError(answers.refusal("overloaded", "", answers.ANY_ORIGIN, retry_after_s=self._retry_after_s))
        now_s = self._monotonic_s()
        address = self._address_of(scope, headers)
        wait_s = self._of_address.take(address, now_s)
        if wait_s:
            raise ProblemError(self._too_fast("address", self._of_address, wait_s, answers.ANY_ORIGIN))
        query, sent_at = apart_from_time(scope.query_string)
        said = (scope.path, address, query, *map(headers.get, _SAID))
        if said[_CREDENTIALS] is None and "authorization" in headers:
            raise ProblemError(answers.refusal("invalid_key", why_unknown("…"), answers.ANY_ORIGIN))  # not ASCII
        admitted = self._remembered(said)
        if admitted is None:
            admitted = self._admit(scope.path, address, query, headers, content_types)
            if sum(len(text) for text in said if text is not None) <= _MAX_REMEMBERED_CHARS:
                self._known.put(said, admitted)
        wait_s = self._of_key.take(admitted.key.id, now_s)
        if wait_s:
            raise ProblemError(self._too_fast("key", self._of_key, wait_s, admitted.headers))
        return admitted, sent_at

    def forget(self) -> None:
        """Forget everybody."""
        self._known.clear()

    def _remembered(self, said: tuple[str | None, ...]) -> Admitted | None:
        admitted = self._known.get(said)
        if admitted is None or admitted.version is self._keys.version:
            return admitted
        version = self._keys.version
        if self._find(admitted.key_text) is not admitted.key:
            return None
        admitted.version = version
        return admitted

    def _address_of(self, scope: Scope, headers: RequestHeaders) -> str:
        if self._addresses.uses_forwarded:
            return self._addresses.of(scope.client, headers.get_all("x-forwarded-for"))
        return bare(scope.client)

    def _admit(
        self, path: str, address: str, query_text: str, headers: RequestHeaders, content_types: frozenset[str]
    ) -> Admitted:
        """Find out whether somebody may send whom we do not remember. Raises `ProblemError`."""
        get = headers.get
        origin, content_type = get("origin"), get("content-type")
        version = self._keys.version
        query = parse_query(query_text)
        text = _key_text(get("authorization"), query)
        key = self._find(text)
        cors = answers.cors(origin, key.origins) if key.origins else answers.ANY_ORIGIN
        if "ingest" not in key.scopes:
            detail = "the key lacks the scope ingest: players send with a pk_… key"
            raise ProblemError(answers.refusal("missing_scope", detail, cors))
        if key.origins and origin not in key.origins:
            sites = ", ".join(key.origins)
            detail = f"the key is for pages of {sites}; " + (
                f"the request comes from {origin[:100]}"
                if origin is not None
                else "the request has no Origin header, so no browser sent it: use a key without a list of origins"
            )
            raise ProblemError(answers.refusal("origin_not_allowed", detail, cors))
        if content_type and content_type not in content_types and media_type(content_type) not in content_types:
            names = ", ".join(sorted(content_types))
            detail = f"Content-Type is {content_type[:100]!r}; send one of {names}, or none"
            raise ProblemError(answers.refusal("unsupported_media_type", detail, cors))
        anonymous = (self._gpc and get("sec-gpc") == "1") or (self._dnt and get("dnt") == "1")
        user_agent = get("user-agent") or ""
        return Admitted(key, address, user_agent, query, cors, hints_of(headers), anonymous, text, path, version)

    def allowance(self, admitted: Admitted) -> Headers:
        """Return the RateLimit headers (draft-ietf-httpapi-ratelimit-headers-11).

        They go on answers that somebody reads: a 204 of sendBeacon nobody does.
        """
        now_s = self._monotonic_s()
        left = ", ".join(
            f'"{kind}";r={limit.left(name, now_s)};t={math.ceil(limit.full_in(name, now_s))}'
            for kind, limit, name in (
                ("address", self._of_address, admitted.address),
                ("key", self._of_key, admitted.key.id),
            )
        )
        return [("ratelimit-policy", self._policy), ("ratelimit", left)]

    def preflight(self, scope: Scope) -> answers.Answer:
        """Answer a browser that asks whether it may send; the key is known where it stands in the URL."""
        text = parse_query(scope.query_string).get("key")
        try:
            key = self._keys.find(text) if text else None
        except KeysUnavailableError:
            key = None  # the request itself will hear of it
        return answers.preflight(answers.cors(scope.headers.get("origin"), key.origins if key else ()))

    def _find(self, text: str) -> Key:
        try:
            key = self._keys.find(text)
        except KeysUnavailableError as error:
            seconds = self._retry_after_s
            answer = answers.refusal("metadata_unavailable", "", answers.ANY_ORIGIN, retry_after_s=seconds)
            raise ProblemError(answer) from error
        if key is None:
            raise ProblemError(answers.refusal("invalid_key", why_unknown(text), answers.ANY_ORIGIN))
        return key

    def _too_fast(self, who: str, limit: RateLimit, wait_s: float, cors: Headers) -> answers.Answer:
        seconds = max(1, math.ceil(wait_s))
        headers = [*cors, ("ratelimit-policy", self._policy), ("ratelimit", f'"{who}";r=0;t={seconds}')]
        detail = f"{_LIMITED[who]} sends more than {limit.per_second} requests a second; wait {seconds} s"
        return answers.refusal("rate_limited", detail, headers, retry_after_s=seconds)


def _nobody(scope: Scope) -> None:
    """Let nobody through."""


def _key_text(authorization: str | None, query: dict[str, str]) -> str:
    """Return the key as the request has it. Raises `ProblemError`."""
    text = query.get("key")
    if authorization:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer":
            detail = "Authorization has another scheme than Bearer: send `Authorization: Bearer pk_…`"
            raise ProblemError(answers.refusal("invalid_key", detail, answers.ANY_ORIGIN))
        text = value.strip()
    if not text:
        raise ProblemError(answers.refusal("missing_key", "", answers.ANY_ORIGIN))
    return text


def media_type(content_type: str) -> str:
    """Return a Content-Type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def apart_from_time(text: str) -> tuple[str, str | None]:
    """Return the query without its last `t`, the same in all beacons of a player, and that `t`.

    Where `t` is not written plainly it stays in the query.
    """
    rest, mark, sent_at = text[:_MAX_QUERY_CHARS].rpartition("&t=")
    if mark and sent_at.isdecimal():
        return rest, sent_at
    if not mark and sent_at.startswith("t="):
        mark, sent_at = "t=", sent_at[2:]
    if mark:  # other parameters follow it, of which one may be `t` in other letters (%74)
        sent_at, _, others = sent_at.partition("&")
        if sent_at.isdecimal() and "%" not in others:
            return f"{rest}&{others}" if rest else others, sent_at
    return text, parse_query(text).get("t")


def parse_query(text: str) -> dict[str, str]:
    """Return the query's parameters; the last of a name counts."""
    text = text[:_MAX_QUERY_CHARS]
    if "%" in text or "+" in text:
        return dict(parse_qsl(text))
    found = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        found[name] = value
    return found
