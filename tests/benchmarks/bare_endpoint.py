"""The endpoint that the service is measured beside: it inserts one row and says so once the row is durable.

    python tests/benchmarks/bare_endpoint.py DATABASE BYTES

- Served as the service is: the same framework, the same web server with the same options. What is sent is read as JSON.
- SQLite: one connection, written on the loop, which no hand-over to a thread comes near; WAL with synchronous=FULL.
- PostgreSQL: 32 connections of asyncio, each row a commit of its own.
- It prints its address, and serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from agentlattice_server import Service, listen

__all__ = ["MARK"]

MARK = b'"inserted"'
"""What every answer holds."""

_CONNECTIONS = 32
_TABLE = "CREATE TABLE IF NOT EXISTS bare (i {key} PRIMARY KEY, content {content})"

_Insert = Callable[[bytes], Awaitable[None]]


async def _main(database: str, size: int) -> None:
    insert = await (_postgres(database) if database.startswith("postgresql:") else _sqlite(database))
    content = os.urandom(size)

    async def endpoint(request: Request) -> Response:
        orjson.loads(await request.body())
        await insert(content)
        return Response(b'{"status":' + MARK + b"}", media_type="application/json")

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_route("/rows", endpoint, methods=["POST"])
    app.state.stopping = asyncio.Event()
    service = Service(app, listen("127.0.0.1", 0))
    await service.serve(lambda: print(service.url, flush=True))


async def _sqlite(database: str) -> _Insert:
    import apsw

    connection = apsw.Connection(database.removeprefix("sqlite:///"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.execute(_TABLE.format(key="INTEGER", content="BLOB"))

    async def insert(content: bytes) -> None:
        connection.execute("INSERT INTO bare (content) VALUES (?)", (content,))

    return insert


async def _postgres(database: str) -> _Insert:
    import psycopg

    idle: asyncio.LifoQueue[psycopg.AsyncConnection] = asyncio.LifoQueue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(await psycopg.AsyncConnection.connect(database, autocommit=True, prepare_threshold=0))
    connection = await idle.get()
    await connection.execute(_TABLE.format(key="bigint GENERATED ALWAYS AS IDENTITY", content="bytea"))
    idle.put_nowait(connection)

    async def insert(content: bytes) -> None:
        connection = await idle.get()
        try:
            await connection.execute("INSERT INTO bare (content) VALUES (%s)", (content,))
        finally:
            idle.put_nowait(connection)

    return insert


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
