"""A key in the transit engine of HashiCorp Vault or OpenBao, over its HTTP API.

    vault://HOST[:PORT]/MOUNT/NAME          HTTPS; without a port, 8200
    vault+http://127.0.0.1[:PORT]/MOUNT/NAME    an agent or proxy on this machine, without TLS

- It reads the key (`GET /v1/MOUNT/keys/NAME`) and signs with one version of it (`POST /v1/MOUNT/sign/NAME`), and does
  nothing else. It takes a policy that allows these two.
- The token is VAULT_TOKEN, or what the file in VAULT_TOKEN_FILE holds, read for each call, because agents renew it.
  VAULT_NAMESPACE and VAULT_CACERT are as for Vault's own programs.
- Neither a token nor what Vault says of an error is in a message of ours.

Specification: https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import ssl
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from agentlattice_core.errors import InvalidRequestError, KeyServiceError

__all__ = ["VaultTransit"]

_PORT: Final = 8200
_PATIENCE: Final = 10.0
_PART: Final = re.compile(r"\w(?:[\w.\-]*\w)?", re.ASCII)
_SIGNATURE: Final = re.compile(r"vault:v([0-9]{1,9}):([A-Za-z0-9+/]+={0,2})")
_KEY_BYTES: Final = 32
_MOST_BYTES: Final = 1 << 20


class VaultTransit:
    """A named key of a transit engine. Raises InvalidRequestError for an address that cannot be one."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or _PORT
        except ValueError:
            raise _not_an_address() from None
        path = parts.path.split("/")[1:]
        if (
            not host
            or parts.username is not None
            or parts.query
            or parts.fragment
            or len(path) < 2
            or not all(_PART.fullmatch(one) for one in path)
        ):
            raise _not_an_address()
        secure = parts.scheme == "vault"
        if not secure and not _is_loopback(host):
            raise InvalidRequestError(
                f"`{address:.200}` would send the token in the clear; without TLS only this machine is spoken to, "
                "so name it as vault://"
            )
        shown = f"[{host}]" if ":" in host else host
        *mount, self._name = path
        self._mount = "/".join(mount)
        self._base = f"{'https' if secure else 'http'}://{shown}:{port}/v1/{self._mount}"

    def newest(self) -> tuple[str, bytes]:
        """The newest version and its public key. Raises KeyServiceError, also for a key of another kind."""
        said = self._call("GET", f"keys/{self._name}")
        kind, derived = said.get("type"), said.get("derived")
        if kind != "ed25519" or derived:
            what = "derived from a context" if derived else f"of type `{kind!s:.40}`"
            raise KeyServiceError(
                f"the key `{self._address}` is {what}, and a log is signed by Ed25519; make one with "
                f"`vault write -f {self._mount}/keys/NAME type=ed25519`"
            )
        version, keys = said.get("latest_version"), said.get("keys")
        if type(version) is not int or not isinstance(keys, dict):
            raise self._nonsense()
        one = keys.get(str(version))
        public = _bytes_of(one.get("public_key") if isinstance(one, dict) else None)
        if public is None or len(public) != _KEY_BYTES:
            raise self._nonsense()
        return str(version), public

    def sign(self, version: str, data: bytes) -> bytes:
        """The signature of `data` by a version of the key; whether it fits is for the caller to see."""
        if not version.isascii() or not version.isdecimal() or len(version) > 9:
            raise KeyServiceError(f"`{version:.40}` is no version of a key in `{self._address}`")
        wanted = {"input": base64.b64encode(data).decode(), "key_version": int(version)}
        found = _SIGNATURE.fullmatch(str(self._call("POST", f"sign/{self._name}", wanted).get("signature")))
        signature = _bytes_of(found[2]) if found is not None and found[1] == version else None
        if signature is None:
            raise self._nonsense()
        return signature

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The `data` of an answer."""
        import httpx  # whoever signs with a file does not wait for it

        try:
            # A client for each call, so that none is carried across a fork; what is dear of it, the trust, is kept.
            deadline = time.monotonic() + _PATIENCE
            with (
                httpx.Client(verify=_trust(os.environ.get("VAULT_CACERT")), timeout=_PATIENCE) as client,
                client.stream(method, f"{self._base}/{path}", json=body, headers=_headers()) as answer,
            ):
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        raise self._nonsense()
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("the answer does not end")
                if answer.status_code != 200:
                    raise self._refusal(answer.status_code)
                said = _json(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise KeyServiceError(
                f"the key service of `{self._address}` cannot be reached ({type(error).__name__}); see that it runs "
                "and that this machine may reach it"
            ) from None
        data = said.get("data") if isinstance(said, dict) else None
        if not isinstance(data, dict):
            raise self._nonsense()
        return data

    def _refusal(self, status: int) -> KeyServiceError:
        rights = f"read `{self._mount}/keys/{self._name}` and update `{self._mount}/sign/{self._name}`"
        why = {
            400: "does not sign with that version of the key; see that the key is there and keeps the version",
            403: f"refuses the token; give one that may {rights}, in VAULT_TOKEN or VAULT_TOKEN_FILE",
            404: "knows no such key; see that the engine and the key are there",
            503: "is sealed or not ready; unseal it",
        }.get(status, "cannot do it; see its log")
        return KeyServiceError(f"the key service of `{self._address}` {why} (HTTP {status})")

    def _nonsense(self) -> KeyServiceError:
        return KeyServiceError(
            f"what answers for `{self._address}` does not speak the transit engine's API; see that the address is right"
        )


def _not_an_address() -> InvalidRequestError:
    # Not shown: somebody may have put a token into it.
    return InvalidRequestError(
        "this is not the address of a key in a transit engine; write vault://HOST:PORT/MOUNT/NAME, and nothing else"
    )


def _headers() -> dict[str, str]:
    headers = {"X-Vault-Request": "true"}
    token, file = os.environ.get("VAULT_TOKEN", "").strip(), os.environ.get("VAULT_TOKEN_FILE", "")
    if not token and file:
        try:
            token = Path(file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise KeyServiceError(f"the token in `{file}` (VAULT_TOKEN_FILE) cannot be read: {why}") from None
    if token:
        if not (token.isascii() and token.isprintable()):
            raise KeyServiceError("the token of the key service holds characters that no token has")
        headers["X-Vault-Token"] = token
    if namespace := os.environ.get("VAULT_NAMESPACE", "").strip():
        headers["X-Vault-Namespace"] = namespace
    return headers


@lru_cache(maxsize=4)
def _trust(authority: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        raise KeyServiceError(
            f"the certificates in `{authority}` (VAULT_CACERT) cannot be read: {error.strerror or 'not in PEM'}"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _bytes_of(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None
