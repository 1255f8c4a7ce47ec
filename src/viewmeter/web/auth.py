"""Who asks and what they may see. The only place of this room that decides it.

In: a request, and the scope that its route names in `opt`. Out: a `Caller` on the request, or 401 / 403.
Promised: a route that names no scope does not exist (fail closed); ingest keys read
nothing; a cookie is good for unsafe methods only from our own pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from viewmeter.metadata.keys import Key, Scope, why_unknown
from viewmeter.olap.protocol import Visible
from viewmeter.web.edge import KEY_ID
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services

COOKIE: Final = "viewmeter_session"
PUBLIC: Final = "public"
"""The `opt["scope"]` of a route that needs no key."""
ANY_KEY: Final = "any"
"""The `opt["scope"]` of a route that every key may use."""

_CALLER: Final = "viewmeter.caller"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_IMPLIED: Final[frozenset[Scope]] = frozenset({"read", "rules", "admin"})


@dataclass(frozen=True)
class Caller:
    """Who asks. `secret` is the key or cookie text, kept to ask again whether it is still valid."""

    key: Key
    secret: str = field(repr=False)  # so that no traceback shows it
    by_cookie: bool

    @property
    def operator(self) -> bool:
        """Whether the caller sees the whole platform."""
        return "operator" in self.key.scopes

    @property
    def visible(self) -> Visible:
        """What the caller may see: handed to every read, and nothing else decides it."""
        return Visible(None) if self.operator else Visible(self.key.tenant.id, self.key.channels)

    @property
    def tenant_id(self) -> str | None:
        """The tenant whose administration the caller sees; None: all of them."""
        return None if self.operator else self.key.tenant.id

    @property
    def reporting_zone(self) -> str:
        """The zone whose days the caller's history is kept by; all tenants together have those of UTC."""
        return "UTC" if self.operator else self.key.tenant.time_zone

    def may(self, scope: Scope) -> bool:
        """Say whether the key has the scope; operator includes read, rules and admin."""
        return scope in self.key.scopes or (self.operator and scope in _IMPLIED)


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse a request that may not use its route; else leave its `Caller` on it."""
    needed = handler.opt.get("scope")
    if needed == PUBLIC or connection.scope.get("method") == "OPTIONS":
        return
    if needed is None:  # the framework's own pages
        raise ProblemError("not_found")
    caller = authenticate(connection)
    if needed != ANY_KEY and not caller.may(cast("Scope", needed)):
        raise ProblemError(
            "missing_scope",
            f"This needs a key with scope `{needed}`; this one has"
            f" {', '.join(f'`{scope}`' for scope in sorted(caller.key.scopes))}.",
        )
    extra = cast("dict[str, object]", connection.scope)
    extra[_CALLER], extra[KEY_ID] = caller, caller.key.id


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """Return who asks, as `guard` found out."""
    return cast("dict[str, Caller]", request.scope)[_CALLER]


def authenticate(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Return who asks, by `Authorization: Bearer sk_…` or else by the session cookie. Raises
    `ProblemError`."""
    header = connection.headers.get("authorization")
    if header is not None:
        return _by_key(services_of(connection), header)
    cookie = connection.cookies.get(COOKIE)
    if cookie is not None:
        caller = _by_cookie(services_of(connection), cookie)
        if connection.scope.get("method") not in _SAFE:
            check_same_origin(connection)
        return caller
    raise ProblemError("missing_key", "Send `Authorization: Bearer sk_…`, or sign in with POST /api/v1/session.")


def still_valid(services: Services, caller: Caller) -> bool:
    """Say whether the key or session that opened a long answer is still good."""
    if caller.by_cookie:
        return services.directory.find_session(caller.secret, services.clock()) is not None
    return services.directory.find(caller.secret) is not None


def check_same_origin(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Refuse (`csrf`) what a page of another site sent.

    Every browser of today says where an unsafe request comes from; a client that says nothing is no browser,
    so nobody can be tricked into using it.
    """
    site = connection.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise ProblemError("csrf", f"The browser says that the request is `{site}`.")
    origin = connection.headers.get("origin")
    # The gateway always writes X-Forwarded-Host anew: what the browser asked for, as far as a proxy is
    # believed.
    host = connection.headers.get("x-forwarded-host") or connection.headers.get("host", "")
    if site is None and origin is not None and urlsplit(origin).netloc != host:
        raise ProblemError("csrf", f"The request comes from {origin[:200]}.")


def services_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """Return the running pieces."""
    return cast("Services", connection.app.state.services)


def _by_key(services: Services, header: str) -> Caller:
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise ProblemError("invalid_key", "Write the header as `Authorization: Bearer sk_…`.")
    key = services.directory.find(text)
    if key is None:
        raise ProblemError("invalid_key", why_unknown(text))
    return Caller(key, text, by_cookie=False)


def _by_cookie(services: Services, text: str) -> Caller:
    session = services.directory.find_session(text, services.clock())
    if session is None:
        raise ProblemError("invalid_session", "The session is over or was ended. Sign in again.")
    return Caller(session.key, text, by_cookie=True)
