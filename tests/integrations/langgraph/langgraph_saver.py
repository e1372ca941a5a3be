"""A checkpointer that keeps everything in one file, at once, so that a killed process loses nothing."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

__all__ = ["FileSaver"]


class FileSaver(InMemorySaver):
    """As InMemorySaver, in the file at `path`. One process at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.lock = (
            threading.RLock()
        )  # LangGraph puts from several threads; the file must never go back in time
        if path.exists():
            storage, writes, blobs = pickle.loads(path.read_bytes())
            for thread, spaces in storage.items():
                for space, checkpoints in spaces.items():
                    self.storage[thread][space].update(checkpoints)
            self.writes.update(writes)
            self.blobs.update(blobs)

    def put(self, *args: Any) -> Any:
        """Keep a checkpoint."""
        with self.lock:
            config = super().put(*args)
            self._keep()
        return config

    def put_writes(self, *args: Any) -> None:
        """Keep what a task wrote."""
        with self.lock:
            super().put_writes(*args)
            self._keep()

    def _keep(self) -> None:
        plain = {
            thread: {name: dict(kept) for name, kept in each.items()} for thread, each in self.storage.items()
        }
        kept = pickle.dumps((plain, dict(self.writes), dict(self.blobs)))
        beside = self.path.with_suffix(".new")
        beside.write_bytes(kept)
        beside.replace(self.path)
