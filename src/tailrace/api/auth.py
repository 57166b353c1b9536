"""Who asks: `Authorization: Bearer` (RFC 6750) on every route that does not say `OPEN`."""

from __future__ import annotations

import re
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware.authentication import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp

from tailrace.errors import Unauthorized
from tailrace.tokens import Verifier

__all__ = ["OPEN", "BearerAuthentication"]

# For a handler's `opt=`: it serves anybody.
OPEN = {"exclude_from_auth": True}

_BEARER = re.compile(r"bearer +([^\s,]+)", re.ASCII | re.IGNORECASE)


class BearerAuthentication(AbstractAuthenticationMiddleware):
    """Puts the token's `Identity` into `request.user`; raises `Unauthorized` where there is none."""

    def __init__(self, app: ASGIApp, verifier: Verifier) -> None:
        super().__init__(app, scopes={ScopeType.HTTP}, exclude_http_methods=())
        self._verifier = verifier

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        """The identity of the request's one bearer token.

        Raises `Unauthorized`.
        """
        given = connection.headers.getall("authorization", [])
        if len(given) != 1:
            raise Unauthorized("Authorization is given twice." if given else None)
        match = _BEARER.fullmatch(given[0].strip())
        if match is None:
            raise Unauthorized("Authorization must be: Bearer TOKEN.")
        return AuthenticationResult(user=self._verifier.verify(match[1]), auth=None)
