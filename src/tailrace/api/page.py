"""The browser page, and its token on the developer's own machine."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.static_files import create_static_files_router
from litestar.types import ControllerRouterHandler

from tailrace.api.auth import OPEN
from tailrace.api.services import Services
from tailrace.tokens import mint

__all__ = ["HEADERS", "DevToken", "handlers"]

UI = Path(__file__).resolve().parent.parent / "ui"
DEV_TOKEN_SECONDS = 24 * 3600.0

# The page needs nothing from elsewhere and nothing inline: what a model writes can never become a script.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the modules carry no version in their names
}

_LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_FILE = re.compile(r"/?[A-Za-z0-9_-]{1,64}(\.[a-z0-9]{1,8}){1,2}", re.ASCII)
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class DevToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token for the page."""

    token: str


@get("/", opt=OPEN, include_in_schema=False, sync_to_thread=True)
def index() -> Response[bytes]:
    """The page."""
    try:
        return Response((UI / "index.html").read_bytes(), media_type=MediaType.HTML, headers=HEADERS)
    except FileNotFoundError as error:
        raise NotFoundException("This installation has no page.") from error


@get("/dev/token", opt=OPEN, include_in_schema=False)
async def dev_token(
    request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> Response[DevToken]:
    """A token of `settings.dev_user`, for a page that this machine's own browser loaded; else 404."""
    settings = services.settings
    if settings.dev_user is None or settings.jwt_secret is None or not _from_this_machine(request):
        raise NotFoundException
    token = mint(settings, user=settings.dev_user, seconds=DEV_TOKEN_SECONDS)
    return Response(DevToken(token=token), headers={"Cache-Control": "no-store"})


def _from_this_machine(request: Request[Any, Any, Any]) -> bool:
    """Whether peer, `Host` and fetch metadata all say so.

    The peer alone is not enough: a foreign name that resolves to 127.0.0.1 (DNS rebinding) makes the browser
    send its page's requests here, and a proxy on this machine makes every peer a local one.
    """
    headers = request.headers
    hosts = headers.getall("host", [])
    return (
        _is_loopback(request.client.host if request.client else "")
        and len(hosts) == 1
        and _LOOPBACK_HOST.fullmatch(hosts[0]) is not None
        and headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        and not any(name in headers for name in _PROXIED)
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _plain_name(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    # The file system raises at NUL and at a long name, which would be a 500.
    if _FILE.fullmatch(str(connection.path_params.get("file_path", ""))) is None:
        raise NotFoundException


async def _with_headers(response: Response[Any]) -> Response[Any]:
    response.headers.update(HEADERS)
    return response


handlers: list[ControllerRouterHandler] = [
    index,
    dev_token,
    create_static_files_router("/ui", [UI], opt=OPEN, guards=[_plain_name], after_request=_with_headers),
]
