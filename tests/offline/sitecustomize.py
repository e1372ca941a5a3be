"""Loaded by every Python that has this directory on its path: connections stay on this machine, attempts are noted.

The attempts are appended to the file that `OFFLINE_LOG` names, one a line.
"""

from __future__ import annotations

import os
import socket
from typing import Any

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse(what: str) -> None:
    with open(os.environ["OFFLINE_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{what}\n")
    raise OSError(f"this test has no network: {what}")


def _checked(address: Any) -> None:
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOCAL):
        _refuse(f"connection to {address[0]}:{address[1]}")


class _OfflineSocket(socket.socket):
    def connect(self, address: Any, /) -> None:
        _checked(address)
        super().connect(address)

    def connect_ex(self, address: Any, /) -> int:
        _checked(address)
        return super().connect_ex(address)

    def sendto(self, data: Any, *where: Any) -> int:
        _checked(where[-1])
        return super().sendto(data, *where)


_resolve = socket.getaddrinfo


def _offline_getaddrinfo(host: Any, *more: Any, **named: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and name != "" and not name.startswith(_LOCAL):
        _refuse(f"name look-up of {name}")
    return _resolve(host, *more, **named)


socket.socket = _OfflineSocket  # type: ignore[misc]
socket.getaddrinfo = _offline_getaddrinfo
