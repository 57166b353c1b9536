"""The list: what is no proof of anybody, made by hand where a library refuses to make it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.fuzz.case import Case, Target
from tests.fuzz.wire import Headers, request

from tailrace.tokens import LEEWAY_SECONDS

__all__ = ["Keys", "tokens"]


class Keys:
    """The issuer's key pair: the server knows the public half only."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, user: str, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that is signed as it should be."""
        return jwt.encode(claims(user, **changes), self._key, algorithm="RS256", headers=header)


def claims(user: str, **changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; None leaves one out."""
    now = int(time.time())
    good = {"sub": user, "aud": "tailrace", "iss": "tailrace", "iat": now, "exp": now + 3600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def _forged(header: Any, payload: Any, key: bytes | None) -> str:
    """A token with any header, signed with HMAC and `key` whatever the header says; None signs nothing."""
    text = ".".join(_b64(part if isinstance(part, bytes) else json.dumps(part).encode())
                    for part in (header, payload))  # fmt: skip
    return f"{text}.{_b64(hmac.digest(key, text.encode(), hashlib.sha256)) if key is not None else ''}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bad_tokens(keys: Keys, user: str) -> dict[str, str | bytes]:
    """The value of `Authorization` behind `Bearer `."""
    now, good, mine = int(time.time()), keys.token(user), claims(user)
    stolen = {"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(Keys()._key.public_key()))}
    made: dict[str, str | bytes] = {
        "empty": "",
        "not a token": "alice",
        "dots": "..",
        "not base64": "é.é.é",
        "cut off": good[:-3],
        "without its signature": good.rpartition(".")[0] + ".",
        "two": f"{good} {good}",
        "two in a list": f"{good}, Bearer {good}",
        "quoted": f'"{good}"',
        "expired": keys.token(user, exp=now - LEEWAY_SECONDS - 5),
        "not yet valid": keys.token(user, nbf=now + LEEWAY_SECONDS + 600),
        "issued in the future": keys.token(user, iat=now + LEEWAY_SECONDS + 600),
        "another audience": keys.token(user, aud="other"),
        "another issuer": keys.token(user, iss="other"),
        "no end": keys.token(user, exp=None),
        "an end that is text": keys.token(user, exp="tomorrow"),
        "an end beyond a float": keys.token(user, exp=10**400),
        "no user": keys.token(user, sub=None),
        "an operator for a user": _resigned(keys, user, {"$gt": ""}),
        "NUL in the user": keys.token(f"{user}\0"),
        "a right-to-left override in the user": keys.token(f"\u202e{user}"),
        "a user of 10 KB": keys.token("a" * 10_240),
        "signed by a stranger": Keys().token(user),
        "a key that it brings along": Keys().token(user, header=stolen),
        "a key that it points at": Keys().token(
            user, header={"jku": "http://127.0.0.1:1/", "kid": "../../x"}
        ),
        "deep JSON for a payload": _forged({"alg": "RS256"}, b"[" * 5_000, b""),
        "a list for a header": _forged(["RS256"], mine, b""),
        "key confusion: HS256 with the public key": _forged({"alg": "HS256", "typ": "JWT"}, mine, keys.pem),
        "key confusion, stripped": _forged({"alg": "HS256"}, mine, keys.pem.strip()),
        "key confusion, said to be RS256": _forged({"alg": "RS256"}, mine, keys.pem),
        "HS256 with an empty key": _forged({"alg": "HS256"}, mine, b""),
        "10 KB": "a" * 10_240,
        "64 KB": "a" * 66_000,
        "NUL": b"a\0b",
    }
    for alg in ("none", "None", "NONE", "nOnE", "", None):
        made[f"alg {alg!r}"] = _forged({"alg": alg, "typ": "JWT"}, mine, None)
        made[f"alg {alg!r}, with a signature"] = _forged({"alg": alg, "typ": "JWT"}, mine, keys.pem)
    return made


def _resigned(keys: Keys, user: str, sub: Any) -> str:
    # PyJWT refuses to make it: its payload is put in place of a good one, and signed again.
    payload = claims(user, sub=sub)
    return jwt.api_jws.encode(json.dumps(payload).encode(), keys._key, algorithm="RS256")


def tokens(target: Target, keys: Keys, user: str) -> Iterator[Case]:
    """Each on a page, on a stream and on the route that starts a run: 401, before anything else."""
    odd: dict[str, Headers] = {
        "none": [],
        "two headers": [target.bearer, target.bearer],
        "two headers, one of them bad": [target.bearer, ("Authorization", "Bearer a")],
        "Basic": [("Authorization", "Basic YWxpY2U6cHc=")],
        "no scheme": [("Authorization", target.token)],
        "scheme alone": [("Authorization", "Bearer")],
        "in a cookie": [("Cookie", f"token={target.token}; Authorization={target.token}")],
    }
    for name, value in _bad_tokens(keys, user).items():
        raw = value if isinstance(value, bytes) else value.encode()
        odd[name] = [("Authorization", b"Bearer " + raw)]
    for name, headers in odd.items():
        # NUL is refused by the parser; what comes in one piece is read before its size is counted.
        right = {"NUL": {400}, "64 KB": {401, 431}}.get(name, {401})
        yield from _everywhere(target, name, headers, frozenset(right))
    asked = f"/api/apps?token={target.token}&access_token={target.token}"
    yield _anonymous("in the query", "GET", asked, [], frozenset({401}))


def _everywhere(target: Target, name: str, headers: Headers, right: frozenset[int]) -> Iterator[Case]:
    yield _anonymous(f"{name}: apps", "GET", "/api/apps", headers, right)
    yield _anonymous(f"{name}: stream", "GET", f"{target.agent}/stream-continue", headers, right)
    json_body = [*headers, ("Content-Type", "application/json")]
    asked = f"{target.agent}/generate"
    yield _anonymous(f"{name}: generate", "POST", asked, json_body, right, body=b'{"prompt":"Hello"}')


def _anonymous(
    name: str, method: str, asked: str, headers: Headers, right: frozenset[int], *, body: bytes = b""
) -> Case:
    raw = request(method, asked, headers, body)
    return Case(topic="token", name=name, parts=(raw,), right=right)
