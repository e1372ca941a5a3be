"""The exceptions by which a framework pauses a run, to go on later, perhaps in another process.

- An adapter registers its framework's own when it is imported. A pause that leaves a delegation's block suspends the
  child: it stays what it is, and whoever resumes the run finds it again.
- A group of exceptions pauses if each of its members does.
"""

from __future__ import annotations

__all__ = ["is_pause", "register_pause"]

_pauses: set[type[BaseException]] = set()


def register_pause(kind: type[BaseException]) -> None:
    """Take exceptions of `kind` for pauses from now on."""
    _pauses.add(kind)


def is_pause(error: BaseException | None) -> bool:
    """Whether what ends a block is a pause, and not an end."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_pause(member) for member in error.exceptions)
    return error is not None and isinstance(error, tuple(_pauses))
