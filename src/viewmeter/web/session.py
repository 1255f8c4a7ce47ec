"""Signing in and out: what a browser does once before it uses the API by cookie.

In: a one-time link, or a secret key. Out: a session cookie (HttpOnly, SameSite=Lax, Secure where the browser
came by https). The secret itself never reaches the browser's storage.
"""

from __future__ import annotations

from html import escape
from typing import Annotated, Any, Final

from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.params import QueryParameter
from litestar.response import Redirect

from viewmeter.web import schemas
from viewmeter.web.auth import COOKIE, caller_of, check_same_origin, services_of
from viewmeter.web.endpoint import body_as, endpoint, json_answer
from viewmeter.web.problems import ProblemError

Ask = Request[Any, Any, Any]


@endpoint(
    "GET", "/signin", "redeemSignInLink", "Use a one-time sign-in link",
    scope="public", answers=None, status=303, tag="Session",
    problems=("sign_in_link_used", "busy", "timeout"),
)  # fmt: skip
async def sign_in_by_link(
    request: Ask, token: Annotated[str, QueryParameter(description="of the link")] = ""
) -> Response[Any]:
    """Good once: sets the session cookie and goes on to the dashboard."""
    services = services_of(request)
    text = await request.app.state.operations.run(services.metadata.redeem_signin, token)
    if text is None:
        if "text/html" in request.headers.get("accept", ""):
            return Response(_USED_PAGE, status_code=401, media_type="text/html")
        raise ProblemError(
            "sign_in_link_used", "A sign-in link is good once, for an hour. `viewmeter signin` prints one."
        )
    return Redirect("/", status_code=303, cookies=[_cookie(request, text)])


_USED_PAGE: Final = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in – Viewmeter</title>
<link rel="stylesheet" href="/docs/style.css"><main><h1>This sign-in link was used or is too old</h1>
<p>A link is good once, for an hour. {escape("`viewmeter signin`")} on the server prints a new one; a secret key
works as well. If you are signed in already, <a href="/">go to the dashboard</a>.</p></main></html>"""


@endpoint(
    "POST", "/api/v1/session", "signIn", "Sign a browser in with a secret key",
    scope="public", answers=schemas.SessionInfo, tag="Session", takes=schemas.SignIn,
    problems=("invalid_key", "csrf", "invalid_json", "validation_failed", "busy", "timeout",
              "metadata_unavailable", "body_too_large_request"),
)  # fmt: skip
async def sign_in(request: Ask) -> Response[bytes]:
    """Sets the session cookie; the session ends with its key."""
    check_same_origin(request)
    services = services_of(request)
    wanted = body_as(schemas.SignIn, await request.body())
    key = services.directory.find(wanted.secret_key.strip())
    if key is None or "ingest" in key.scopes:
        raise ProblemError("invalid_key", "Secret keys start with sk_; this one does not exist or was revoked.")
    text = await request.app.state.operations.run(services.metadata.create_session, key)
    answer = json_answer(_info(key.tenant.id, key.scopes, key.channels))
    answer.set_cookie(_cookie(request, text))
    return answer


@endpoint(
    "GET", "/api/v1/session", "session", "Who is signed in",
    scope="any", answers=schemas.SessionInfo, tag="Session",
)  # fmt: skip
async def session(request: Ask) -> Response[bytes]:
    """Of a session cookie, or of a key."""
    key = caller_of(request).key
    return json_answer(_info(key.tenant.id, key.scopes, key.channels))


@endpoint(
    "DELETE", "/api/v1/session", "signOut", "Sign the browser out",
    scope="public", answers=None, status=204, tag="Session", problems=("csrf", "busy", "timeout"),
)  # fmt: skip
async def sign_out(request: Ask) -> Response[None]:
    """Ends the session of the cookie. Without one there is nothing to end, and that is fine."""
    check_same_origin(request)
    text = request.cookies.get(COOKIE)
    if text is not None:
        services = services_of(request)
        await request.app.state.operations.run(services.metadata.end_session, text)
        services.directory.forget_session(text)
    answer: Response[None] = Response(None, status_code=204)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def _info(tenant: str, scopes: frozenset[str], channels: tuple[str, ...] | None) -> dict[str, object]:
    return {
        "tenant": tenant,
        "scopes": sorted(scopes),
        "channels": None if channels is None else list(channels),
    }


def _cookie(request: Ask, text: str) -> Cookie:
    services = services_of(request)
    return Cookie(
        key=COOKIE,
        value=text,
        path="/",
        max_age=services.metadata.settings.session_ttl_ms // 1000,
        httponly=True,
        samesite="lax",
        secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
    )


ROUTES: Final = (sign_in_by_link, sign_in, session, sign_out)
