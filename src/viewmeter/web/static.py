"""The built dashboard: `/`, `/assets/*`, and the player SDK at `/v.js` where it was built.

In: the folder of the build. Out: its files with caching and types. Promised: only files that were found in
the folder are served (a path is a key, never a path of the disk); names with a content hash are cached for a
year, others are asked for again each time; compressed once, not per request.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from litestar import Request, Response
from litestar.params import PathParameter

from viewmeter.web.endpoint import endpoint
from viewmeter.web.problems import ProblemError

Ask = Request[Any, Any, Any]

MAX_BYTES: Final = 32 << 20
"""The whole build is held in memory; more than this is not a dashboard."""

TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_HASHED: Final = re.compile(r"-(?=[\w-]*[A-Z0-9])[A-Za-z0-9_-]{8}\.[a-z0-9]+(\.map)?$")
_SQUEEZABLE: Final = ("text/", "application/json", "image/svg")

_NOT_BUILT: Final = """Viewmeter is running, but its dashboard has not been built.

    make build        builds it (it is part of `make setup`)

The numbers are at /api/v1/analytics, the documentation at /docs.
"""


@dataclass(frozen=True)
class Asset:
    """One file of the build."""

    body: bytes
    squeezed: bytes | None  # gzip, where it is smaller
    media: str
    etag: str
    immutable: bool


class Build:
    """The files of a build. A new build is seen when its page is asked for next."""

    def __init__(self, folder: Path, page: str) -> None:
        self._folder = folder
        self._page = page
        self._stamp: int | None = None
        self._assets: dict[str, Asset] = {}

    def find(self, name: str) -> Asset | None:
        """Return a file by its name relative to the folder, e.g. `assets/index-Dx3k9a2b.js`."""
        if name == self._page or not self._assets:
            self._refresh()
        return self._assets.get(name)

    def _refresh(self) -> None:
        try:
            stamp = (self._folder / self._page).stat().st_mtime_ns
        except OSError:
            self._stamp, self._assets = None, {}
            return
        if stamp != self._stamp:
            self._assets = _load(self._folder)
            self._stamp = stamp


def _load(folder: Path) -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix not in TYPES or path.is_symlink() or not path.is_file():
            continue
        size += path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"The dashboard's build is larger than {MAX_BYTES >> 20} MiB: {folder.name}")
        found[path.relative_to(folder).as_posix()] = _asset(path)
    return found


def _asset(path: Path) -> Asset:
    body, media = path.read_bytes(), TYPES[path.suffix]
    squeezed = gzip.compress(body, 9, mtime=0) if media.startswith(_SQUEEZABLE) and len(body) > 500 else None
    if squeezed is not None and len(squeezed) >= len(body):
        squeezed = None
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    return Asset(body, squeezed, media, etag, _HASHED.search(path.name) is not None)


def _serve(request: Ask, asset: Asset, extra: dict[str, str] | None = None) -> Response[bytes]:
    keep = "public, max-age=31536000, immutable" if asset.immutable else "no-cache"
    headers = {"Cache-Control": keep, "ETag": asset.etag, "Vary": "Accept-Encoding", **(extra or {})}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=asset.media)
    if asset.squeezed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.squeezed, headers=headers, media_type=asset.media)
    return Response(asset.body, headers=headers, media_type=asset.media)


@endpoint(
    "HEAD", "/", "dashboard", "The dashboard", scope="public", answers=None, media={"text/html": str}, tag="Pages",
    hidden=True,
)  # fmt: skip
async def index(request: Ask) -> Response[bytes]:
    """The built page, or what to do when there is none."""
    asset = request.app.state.dashboard.find("index.html")
    if asset is None:
        return Response(_NOT_BUILT.encode(), media_type="text/plain")
    return _serve(request, asset)


@endpoint(
    "HEAD", "/assets/{name:path}", "asset", "A file of the dashboard", scope="public", answers=None,
    media={"application/octet-stream": bytes}, tag="Pages", hidden=True,
)  # fmt: skip
async def asset_file(request: Ask, name: Annotated[str, PathParameter(description="of the file")]) -> Response[bytes]:
    """One of the files that the page loads."""
    asset = request.app.state.dashboard.find("assets/" + name.removeprefix("/"))
    if asset is None:
        raise ProblemError("not_found", "The dashboard's build has no such file; reload the page.")
    return _serve(request, asset)


@endpoint(
    "HEAD", "/v.js", "playerSdk", "The player SDK", scope="public", answers=None, media={"text/javascript": str},
    tag="Pages", problems=("not_found",),
)  # fmt: skip
async def player_sdk(request: Ask) -> Response[bytes]:
    """For any site to load, so it is open to all origins."""
    asset = request.app.state.player.find("v.js")
    if asset is None:
        raise ProblemError(
            "not_found",
            "This installation has no player SDK. Send events to POST /api/v1/events/beacon from your player,"
            " or turn on its CMCD event mode (docs: send events).",
        )
    open_to_all = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    return _serve(request, asset, open_to_all)


ROUTES: Final = (index, asset_file, player_sdk)
