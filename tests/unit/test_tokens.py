"""Tokens: what proves a user, and everything that does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.e2e.stack import eventually

from tailrace.errors import SettingError, Unauthorized
from tailrace.settings import Settings
from tailrace.tokens import LEEWAY_SECONDS, Verifier, mint

SECRET = "a secret that is long enough for HS256"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def settings() -> Settings:
    return Settings(jwt_secret=SECRET)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"sub": "alice", "aud": "tailrace", "iss": "tailrace", "iat": now, "exp": now + 60, **changes}
    return {name: value for name, value in made.items() if value is not None}


def hs256(key: bytes, payload: dict[str, Any], *, alg: str = "HS256", **header: Any) -> str:
    """Signed by hand: PyJWT refuses to make most of these."""
    parts = [json.dumps({"alg": alg, "typ": "JWT", **header}).encode(), json.dumps(payload).encode()]
    text = ".".join(_b64(part) for part in parts)
    return f"{text}.{_b64(hmac.digest(key, text.encode(), hashlib.sha256))}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[no-any-return]


def test_a_minted_token_proves_its_user(settings: Settings) -> None:
    identity = Verifier.from_settings(settings).verify(mint(settings, user="alice", seconds=60))
    assert identity.user == "alice"
    assert identity.expires_at == pytest.approx(time.time() + 60 + LEEWAY_SECONDS, abs=5)


def test_a_token_that_was_good_expires(settings: Settings) -> None:
    verifier = Verifier.from_settings(settings)
    token = mint(settings, user="alice", seconds=2 - LEEWAY_SECONDS)
    identity = verifier.verify(token)
    assert verifier.verify(token) is identity

    def refused() -> bool:
        try:
            verifier.verify(token)
        except Unauthorized:
            return True
        return False

    assert eventually(refused)
    assert time.time() > identity.expires_at


def test_of_many_good_tokens_the_newest_are_remembered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.tokens.KEPT_TOKENS", 2)
    verifier = Verifier.from_settings(settings)
    tokens = [mint(settings, user=user) for user in ("alice", "bob", "carol")]
    first, *others = [verifier.verify(token) for token in tokens]
    assert all(verifier.verify(token) is identity for token, identity in zip(tokens[1:], others, strict=True))
    assert verifier.verify(tokens[0]) == first


def test_a_name_of_any_script_is_a_user(settings: Settings) -> None:
    user = "Åsa 王"
    assert Verifier.from_settings(settings).verify(mint(settings, user=user)).user == user


REFUSED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no token": lambda: "alice",
    "two parts": lambda: "a.b",
    "not base64": lambda: "é.é.é",
    "very long": lambda: "a" * 100_000,
    "expired": lambda: hs256(SECRET.encode(), claims(exp=int(time.time()) - LEEWAY_SECONDS - 1)),
    "not yet valid": lambda: hs256(SECRET.encode(), claims(nbf=int(time.time()) + LEEWAY_SECONDS + 30)),
    "issued in the future": lambda: hs256(SECRET.encode(), claims(iat=int(time.time()) + 600)),
    "another audience": lambda: hs256(SECRET.encode(), claims(aud="other")),
    "another issuer": lambda: hs256(SECRET.encode(), claims(iss="other")),
    "another secret": lambda: hs256(b"another secret of thirty-two bytes", claims()),
    "alg none": lambda: jwt.encode(claims(), "", algorithm="none"),
    "alg none, signed": lambda: hs256(SECRET.encode(), claims(), alg="none"),
    "alg None, in capitals": lambda: hs256(SECRET.encode(), claims(), alg="NONE"),
    "RS256 against a secret": lambda: jwt.encode(claims(), RSA_KEY, algorithm="RS256"),
    "HS512": lambda: jwt.encode(claims(), SECRET * 3, algorithm="HS512"),
    "exp is text": lambda: hs256(SECRET.encode(), claims(exp="tomorrow")),
    "exp is infinite": lambda: hs256(SECRET.encode(), claims(exp=float("inf"))),
    "exp is not a number": lambda: hs256(SECRET.encode(), claims(exp=float("nan"))),
    "exp is beyond a float": lambda: hs256(SECRET.encode(), claims(exp=10**400)),
    "exp is a list": lambda: hs256(SECRET.encode(), claims(exp=[1])),
    "sub is empty": lambda: hs256(SECRET.encode(), claims(sub="")),
    "sub is a number": lambda: hs256(SECRET.encode(), claims(sub=7)),
    "sub is an object": lambda: hs256(SECRET.encode(), claims(sub={"$gt": ""})),
    "sub has NUL": lambda: hs256(SECRET.encode(), claims(sub="a\0b")),
    "sub has a newline": lambda: hs256(SECRET.encode(), claims(sub="a\nb")),
    "sub has a right-to-left mark": lambda: hs256(SECRET.encode(), claims(sub="a\u202eb")),
    "sub has a lone surrogate": lambda: hs256(SECRET.encode(), claims(sub="a\ud800b")),
    "sub is too long": lambda: hs256(SECRET.encode(), claims(sub="a" * 257)),
    "the payload is no object": lambda: hs256(SECRET.encode(), ["alice"]),  # type: ignore[arg-type]
    **{
        f"no {name}": (lambda name=name: hs256(SECRET.encode(), claims(**{name: None})))  # type: ignore[misc]
        for name in ("exp", "sub", "aud", "iss")
    },
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_proves_nothing_is_unauthorized(make: Callable[[], str], settings: Settings) -> None:
    with pytest.raises(Unauthorized):
        Verifier.from_settings(settings).verify(make())


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")], ids=["RS256", "ES256"]
)
def test_a_public_key_checks_its_own_algorithm_only(key: Any, algorithm: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(key))
    verifier = Verifier.from_settings(Settings(jwt_public_key_file=str(file)))
    assert verifier.verify(jwt.encode(claims(), key, algorithm=algorithm)).user == "alice"
    other = {"RS256": "PS256", "ES256": "RS256"}[algorithm]
    for token in (
        hs256(pem(key), claims()),  # key confusion: the public key's text as a shared secret
        hs256(pem(key).strip(), claims()),
        jwt.encode(claims(), "", algorithm="none"),
        jwt.encode(claims(), RSA_KEY, algorithm=other),
    ):
        with pytest.raises(Unauthorized):
            verifier.verify(token)


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if key is RSA_KEY else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


def test_a_jwks_file_checks_by_kid(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    shared = {"kty": "oct", "k": _b64(SECRET.encode()), "kid": "shared", "alg": "HS256"}
    encryption = jwk(RSA_KEY, "encryption", use="enc")
    file.write_text(
        json.dumps(
            {"keys": [jwk(RSA_KEY, "r", use="sig", alg="RS256"), jwk(EC_KEY, "e"), shared, encryption]}
        )
    )
    verifier = Verifier.from_settings(Settings(jwt_jwks_file=str(file)))
    for key, algorithm, kid in ((RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e")):
        token = jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": kid})
        assert verifier.verify(token).user == "alice"
    for token in (
        jwt.encode(claims(), RSA_KEY, algorithm="RS256"),
        jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "e"}),
        jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "encryption"}),
        jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "unknown"}),
        hs256(SECRET.encode(), claims(), kid="shared"),
        hs256(SECRET.encode(), claims(), kid=["r"]),
        hs256(pem(RSA_KEY), claims(), kid="r"),
    ):
        with pytest.raises(Unauthorized):
            verifier.verify(token)


def test_without_a_way_to_check_tokens_the_settings_are_refused() -> None:
    with pytest.raises(SettingError, match=r"TAILRACE_JWT_SECRET .*none of them"):
        Verifier.from_settings(Settings())


def test_two_ways_to_check_tokens_are_refused() -> None:
    with pytest.raises(SettingError, match="TAILRACE_JWT_SECRET and TAILRACE_JWT_JWKS_FILE is set"):
        Verifier.from_settings(Settings(jwt_secret=SECRET, jwt_jwks_file="jwks.json"))


def _weak() -> bytes:
    return pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))


UNUSABLE: dict[str, Callable[[], bytes]] = {
    "not PEM": lambda: b"a secret",
    "a weak RSA key": _weak,
    "another curve": lambda: pem(ec.generate_private_key(ec.SECP384R1())),
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_key_file_that_cannot_be_used_is_named(content: Callable[[], bytes], tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content())
    with pytest.raises(SettingError, match=r"TAILRACE_JWT_PUBLIC_KEY_FILE=.*key\.pem"):
        Verifier.from_settings(Settings(jwt_public_key_file=str(file)))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": 1}', '{"keys": [1]}', '{"keys": []}', '{"keys": [{"kid": "a"}]}']
)
def test_a_jwks_file_without_a_usable_key_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(text)
    with pytest.raises(SettingError, match=r"TAILRACE_JWT_JWKS_FILE=.*jwks\.json"):
        Verifier.from_settings(Settings(jwt_jwks_file=str(file)))


def test_a_missing_key_file_is_named() -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        Verifier.from_settings(Settings(jwt_public_key_file="/nowhere/key.pem"))


def test_minting_needs_the_secret() -> None:
    with pytest.raises(SettingError, match="TAILRACE_JWT_SECRET"):
        mint(Settings(jwt_public_key_file="key.pem"), user="alice")


def test_a_token_is_not_minted_for_what_cannot_be_a_user(settings: Settings) -> None:
    for user in ("", "a\nb", "a" * 257):
        with pytest.raises(SettingError, match="cannot be a user"):
            mint(settings, user=user)
