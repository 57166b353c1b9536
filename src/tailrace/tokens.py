"""Bearer tokens: JSON Web Tokens (RFC 7519) that name a user. `mint` makes one, `Verifier` checks one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tailrace.errors import SettingError, Unauthorized
from tailrace.settings import Settings, variable

__all__ = ["LEEWAY_SECONDS", "RETENTION_CLAIM", "Identity", "Verifier", "mint"]

RETENTION_CLAIM = "tailrace_retention"  # seconds that the events of a session are kept which the token begins

LEEWAY_SECONDS = 10  # clocks of issuer and API may differ by this much
MAX_TOKEN_CHARACTERS = 8192  # a longer one is an attack on the parser, not a token
MAX_USER_CHARACTERS = 256
KEPT_TOKENS = 4096  # that were found good; a client sends the same one again and again
MIN_RSA_BITS = 2048  # NIST SP 800-131A
MIN_RETENTION_SECONDS = 60.0  # less, and a run's readers could not connect again
_MONTH = 30 * 86_400.0

_SOURCES = ("jwt_secret", "jwt_public_key_file", "jwt_jwks_file")
_CHOICES = (
    f"{variable('jwt_secret')} (HS256), {variable('jwt_public_key_file')} (RS256 or ES256, PEM) "
    f"or {variable('jwt_jwks_file')} (RS256 or ES256, by kid)"
)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    user: str  # the token's `sub`
    expires_at: float  # Unix seconds at which the token stops being accepted: its `exp` plus the leeway
    retention_seconds: float | None = None  # for the sessions that it begins: its claim `tailrace_retention`


class _Key(msgspec.Struct, frozen=True):
    """A key and the one algorithm it may be used with: a token's own `alg` never chooses."""

    value: Any  # bytes of a secret, or a cryptography public key
    algorithm: str


def mint(
    settings: Settings, *, user: str, seconds: float = _MONTH, retention_seconds: float | None = None
) -> str:
    """A token of `user` that `settings` accept for `seconds` from now, with a claim to retention if given.

    Raises `SettingError` when there is no secret to sign with, or `user` cannot be a user's name.
    """
    if settings.jwt_secret is None:
        raise SettingError(
            f"Making a token needs {variable('jwt_secret')}. With a public key or JWKS file the tokens come "
            "from whoever holds the private key."
        )
    if not _is_user(user):
        raise SettingError(
            f"{user[:80]!r} cannot be a user: 1 to {MAX_USER_CHARACTERS} characters, none of them control."
        )
    now = int(time.time())
    claims = {
        "sub": user,
        "aud": settings.jwt_audience,
        "iss": settings.jwt_issuer,
        "iat": now,
        "exp": int(now + seconds),
        **({} if retention_seconds is None else {RETENTION_CLAIM: retention_seconds}),
    }
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")


class Verifier:
    """Checks tokens against the one key source that the settings name."""

    def __init__(
        self, keys: Mapping[str | None, _Key], *, audience: str, issuer: str, max_retention: float
    ) -> None:
        self._keys = keys  # by `kid`; a single key is under None and serves every token
        self._max_retention = max_retention  # seconds
        self._audience = audience
        self._issuer = issuer
        self._good: dict[str, Identity] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Verifier:
        """The verifier for `settings`.

        Raises `SettingError` unless exactly one of secret, public key and JWKS is set and usable.
        """
        given = [field for field in _SOURCES if getattr(settings, field) is not None]
        if len(given) != 1:
            found = " and ".join(variable(field) for field in given) or "none of them"
            raise SettingError(f"The API checks tokens by exactly one of {_CHOICES}; {found} is set.")
        keys: Mapping[str | None, _Key]
        if settings.jwt_secret is not None:
            keys = {None: _Key(settings.jwt_secret.encode(), "HS256")}
        elif settings.jwt_public_key_file is not None:
            keys = {None: _pem(Path(settings.jwt_public_key_file))}
        else:
            keys = _jwks(Path(str(settings.jwt_jwks_file)))
        return cls(
            keys,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            max_retention=settings.max_retention_seconds,
        )

    def verify(self, token: str) -> Identity:
        """The identity that `token` proves.

        Raises `Unauthorized` whatever is wrong with it; the message says what, but never whose it is.
        """
        identity = self._good.get(token)
        if identity is None or time.time() >= identity.expires_at:
            identity = self._identity(token)
            if len(self._good) >= KEPT_TOKENS:
                del self._good[next(iter(self._good))]
            self._good[token] = identity
        return identity

    def _identity(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized("The token is too long.")
        try:
            claims = self._claims(token)
            expires_at = float(claims["exp"]) + LEEWAY_SECONDS
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The token has expired.") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthorized("The token is not valid here.") from error
        if not _is_user(claims["sub"]):
            raise Unauthorized("The token's `sub` is not a user.")
        retention = claims.get(RETENTION_CLAIM)
        if retention is not None and not _is_retention(retention):
            # Not ignored: what was promised to be gone soon would be kept.
            raise Unauthorized(f"The token's `{RETENTION_CLAIM}` is not {MIN_RETENTION_SECONDS:g} s or more.")
        kept = None if retention is None else float(min(retention, self._max_retention))
        return Identity(user=claims["sub"], expires_at=expires_at, retention_seconds=kept)

    def _claims(self, token: str) -> dict[str, Any]:
        key = self._keys.get(None)
        if key is None:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            raise Unauthorized("The token names no key that is known here.")
        return jwt.decode(
            token,
            key.value,
            algorithms=[key.algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "sub", "aud", "iss"]},
        )


def _is_user(sub: object) -> bool:
    # `isprintable` refuses control and format characters and lone surrogates, which MongoDB cannot hold.
    return isinstance(sub, str) and 0 < len(sub) <= MAX_USER_CHARACTERS and sub.isprintable()


def _is_retention(claim: object) -> bool:
    number = isinstance(claim, int | float) and not isinstance(claim, bool)
    return number and MIN_RETENTION_SECONDS <= claim < math.inf  # type: ignore[operator]


def _pem(path: Path) -> _Key:
    name = variable("jwt_public_key_file")
    try:
        key = _usable(load_pem_public_key(_read(name, path)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingError(f"{name}={str(path)!r} holds no PEM public key: {error}") from error
    if key is None:
        raise SettingError(
            f"{name}={str(path)!r} must hold an RSA key of {MIN_RSA_BITS}+ bits or an EC key on P-256."
        )
    return key


def _jwks(path: Path) -> Mapping[str | None, _Key]:
    """The signing keys of a JWK Set (RFC 7517) by `kid`; keys of other kinds and uses are left out."""
    name = variable("jwt_jwks_file")
    try:
        listed = json.loads(_read(name, path))["keys"]
        found = {entry["kid"]: _jwk(entry) for entry in listed if isinstance(entry.get("kid"), str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingError(f"{name}={str(path)!r} holds no JWK set: {error!r}") from error
    keys: dict[str | None, _Key] = {kid: key for kid, key in found.items() if key is not None}
    if not keys:
        raise SettingError(f"{name}={str(path)!r} holds no RS256 or ES256 key with a kid.")
    return keys


def _jwk(entry: dict[str, Any]) -> _Key | None:
    # `oct` would be a shared secret in a file of public keys.
    if entry.get("kty") not in ("RSA", "EC") or entry.get("use", "sig") != "sig":
        return None
    try:
        key = _usable(jwt.PyJWK(entry).key)
    except jwt.PyJWTError:
        return None
    return key if key is not None and entry.get("alg", key.algorithm) == key.algorithm else None


def _usable(key: object) -> _Key | None:
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return _Key(key, "RS256")
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return _Key(key, "ES256")
    return None


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"{name}={str(path)!r} cannot be read: {error.strerror}.") from error
