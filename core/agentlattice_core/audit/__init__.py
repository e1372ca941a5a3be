"""The audit log: what is sealed, hashed, signed and verified. It knows no store and does no I/O but the signer's files.

canonical    one value, one sequence of bytes
entry        what an entry is; sealing and parsing
merkle       the tree over entries: frontier, roots, proofs
tiles        the tree's hashes as stored
checkpoint   a tree head as text             note     the signed note around it
keys         one key after another       signer   who signs, and what it refuses to sign
verify       a whole log, row by row         report   what verification answers
diagnosis    which row is the odd one out    cuts     an older copy that somebody accepted
export       a log as JSON lines             proof    one entry as a document
"""

from __future__ import annotations

__all__: list[str] = []
