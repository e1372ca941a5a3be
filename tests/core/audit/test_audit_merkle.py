"""The Merkle tree is RFC 6962's: shown against a naive version, other people's vectors, and every small tree."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog

from agentlattice_core.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)
from agentlattice_core.audit.tiles import TILE_BYTES, TiledHashes, tiles_completed_by
from agentlattice_core.errors import AuditError

VECTORS = Path(__file__).parents[2] / "vectors"
TREE = json.loads((VECTORS / "merkle_tree.json").read_text())
PROOFS = json.loads((VECTORS / "merkle_proofs.json").read_text())
LARGEST = 70
LEAVES = [leaf_hash(bytes([n])) for n in range(LARGEST)]


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1 word for word."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


def naive_consistency(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 section 2.1.2 word for word."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*naive_consistency(old, leaves[:split], whole), naive_root(leaves[split:])]
    return [*naive_consistency(old - split, leaves[split:], False), naive_root(leaves[:split])]


def reader(leaves: list[bytes]) -> Any:
    return lambda level, index: naive_root(leaves[index << level : (index + 1) << level])


READ = reader(LEAVES)
ROOTS = [naive_root(LEAVES[:size]) for size in range(LARGEST + 1)]


def test_the_reference_tree_of_certificate_transparency() -> None:
    """Same leaves, same roots as the tree that RFC 6962 was first implemented with."""
    leaves = [leaf_hash(bytes.fromhex(text)) for text in TREE["leaves"]]
    assert root_from_leaves([]) == EMPTY_ROOT == bytes.fromhex(TREE["empty"])
    for size, root in enumerate(TREE["roots"], start=1):
        assert root_from_leaves(leaves[:size]).hex() == root


@pytest.mark.parametrize("vector", PROOFS["inclusion"], ids=lambda vector: vector["name"])
def test_inclusion_vectors_of_another_implementation(vector: dict[str, Any]) -> None:
    """Their good proofs pass, each of their bad ones is refused."""
    arguments = (
        bytes.fromhex(vector["leaf"]),
        vector["index"],
        vector["size"],
        [bytes.fromhex(item) for item in vector["proof"]],
        bytes.fromhex(vector["root"]),
    )
    if vector["valid"]:
        verify_inclusion(*arguments)
    else:
        with pytest.raises(AuditError):
            verify_inclusion(*arguments)


@pytest.mark.parametrize("vector", PROOFS["consistency"], ids=lambda vector: vector["name"])
def test_consistency_vectors_of_another_implementation(vector: dict[str, Any]) -> None:
    """Their good proofs pass, each of their bad ones is refused."""
    arguments = (
        vector["old"],
        bytes.fromhex(vector["old_root"]),
        vector["new"],
        bytes.fromhex(vector["new_root"]),
        [bytes.fromhex(item) for item in vector["proof"]],
    )
    if vector["valid"]:
        verify_consistency(*arguments)
    else:
        with pytest.raises(AuditError):
            verify_consistency(*arguments)


def test_every_inclusion_proof_up_to_70_entries() -> None:
    """For every entry of every tree: the proof is RFC 6962's and passes, for no other leaf, place or root."""
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, READ)
            assert proof == naive_path(index, LEAVES[:size])
            verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
            wrong = [
                (LEAVES[index - 1] if size > 1 else ROOTS[0], index, size, proof, ROOTS[size]),
                (LEAVES[index], index, size, proof, ROOTS[size - 1]),
                (LEAVES[index], index, size, [*proof, ROOTS[0]], ROOTS[size]),
                (LEAVES[index], size, size, proof, ROOTS[size]),
                (LEAVES[index], -1, size, proof, ROOTS[size]),
            ]
            if proof:
                wrong.append((LEAVES[index], index, size, proof[:-1], ROOTS[size]))
                wrong.append((LEAVES[index], index, size, [*proof[:-1], ROOTS[0]], ROOTS[size]))
                wrong.append((LEAVES[index], (index + 1) % size, size, proof, ROOTS[size]))
            for arguments in wrong:
                with pytest.raises(AuditError):
                    verify_inclusion(*arguments)


def test_every_consistency_proof_up_to_70_entries() -> None:
    """For every pair of sizes: the proof is RFC 6962's, it passes, and it passes for no other pair of roots."""
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            proof = consistency_proof(old, new, READ)
            assert proof == (naive_consistency(old, LEAVES[:new]) if 0 < old < new else [])
            verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)
            other = ROOTS[3] if new != 3 else ROOTS[4]
            wrong = [(old, ROOTS[old], new, ROOTS[new], [*proof, ROOTS[1]])]
            if old > 0:
                wrong.append((old, other if old not in (3, 4) else ROOTS[7], new, ROOTS[new], proof))
                wrong.append((old, ROOTS[old], new, other, proof))
            if proof:
                wrong.append((old, ROOTS[old], new, ROOTS[new], proof[:-1]))
                wrong.append((old, ROOTS[old], new, ROOTS[new], [*proof[:-1], ROOTS[0]]))
            for arguments in wrong:
                with pytest.raises(AuditError):
                    verify_consistency(*arguments)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1)])
def test_a_tree_cannot_shrink(old: int, new: int) -> None:
    """There is no proof, and no proof is accepted, that a smaller tree extends a larger one."""
    with pytest.raises(AuditError):
        consistency_proof(old, new, READ)
    with pytest.raises(AuditError):
        verify_consistency(old, ROOTS[1], new, ROOTS[1], [])


@given(st.lists(st.integers(0, 400), max_size=5), st.integers(0, 2**32))
def test_the_frontier_is_a_full_recomputation(steps: list[int], seed: int) -> None:
    """However the leaves arrive, one by one or in runs, the root is the naive one; storing changes nothing."""
    random = Random(seed)
    frontier, leaves = Frontier(), []
    for count in steps:
        more = [random.randbytes(32) for _ in range(count)]
        if random.random() < 0.5:
            frontier.extend(more)
        else:
            for leaf in more:
                frontier.push(leaf)
        leaves += more
        frontier = Frontier.from_bytes(frontier.to_bytes())
    assert frontier.root() == naive_root(leaves)
    assert frontier.size == len(leaves)
    assert frontier == Frontier.read(len(leaves), reader(leaves))


@pytest.mark.parametrize(
    "text",
    [b"", b"\0" * 7, b"\0" * 8 + b"x" * 32, b"\0" * 7 + b"\3" + b"x" * 32, b"\0" * 7 + b"\1" + b"x" * 31],
)
def test_a_frontier_of_no_tree_is_refused(text: bytes) -> None:
    """A damaged head row is noticed when it is read."""
    with pytest.raises(AuditError):
        Frontier.from_bytes(text)


@given(
    st.lists(st.binary(min_size=1, max_size=4), min_size=2, max_size=40),
    st.data(),
)
def test_no_proof_shows_a_tree_with_another_leaf_in_it(contents: list[bytes], data: st.DataObject) -> None:
    """Changing any one leaf changes the root, and no honest proof connects the two trees."""
    leaves = [leaf_hash(item) for item in contents]
    place = data.draw(st.integers(0, len(leaves) - 1))
    forged = leaves.copy()
    forged[place] = leaf_hash(b"forged")
    assert root_from_leaves(forged) != root_from_leaves(leaves)
    old = data.draw(st.integers(place + 1, len(leaves)))
    with pytest.raises(AuditError):
        verify_consistency(
            old,
            naive_root(leaves[:old]),
            len(leaves),
            naive_root(forged),
            consistency_proof(old, len(leaves), reader(forged)),
        )


def test_tiles_answer_for_every_subtree_with_few_reads(log_of_600: MemoryLog) -> None:
    """Proofs from tiles are the naive ones, and read at most a handful of tiles and leaf runs."""
    log = log_of_600
    leaves = [row[2] for row in log.rows]
    reads = 0

    def read_leaves(start: int, count: int) -> bytes:
        nonlocal reads
        reads += 1
        return log.read_leaves(start, count)

    for index, size in [(0, 600), (255, 256), (256, 257), (511, 512), (599, 600), (300, 513), (0, 1)]:
        reads = 0
        proof = inclusion_proof(index, size, TiledHashes(log.read_tile, read_leaves))
        assert proof == naive_path(index, leaves[:size])
        assert reads <= 10
    for old, new in [(1, 600), (256, 600), (511, 600), (513, 600)]:
        proof = consistency_proof(old, new, TiledHashes(log.read_tile, read_leaves))
        assert proof == naive_consistency(old, leaves[:new])


def test_tiles_have_the_published_geometry() -> None:
    """A tree of 70,000 entries: 273 full tiles at level 0, one full and one of 17 at level 1, one of 1 at level 2."""
    leaves = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(70_000))
    stored: dict[tuple[int, int], bytes] = {}
    sizes = [0, 1, 255, 256, 300, 1000, 65_535, 65_536, 65_537, 69_999, 70_000]
    for old, new in pairwise(sizes):
        tiles = tiles_completed_by(
            old,
            new,
            lambda start, count: leaves[32 * start : 32 * (start + count)],
            lambda *at: stored.get(at),
        )
        stored.update({(tile.level, tile.index): tile.hashes for tile in tiles})
    assert {at: len(hashes) // 32 for at, hashes in stored.items()} == {
        **{(0, index): 256 for index in range(273)},
        (1, 0): 256,
        (1, 1): 17,
        (2, 0): 1,
    }
    assert stored[0, 5] == leaves[5 * TILE_BYTES : 6 * TILE_BYTES]
    hashes = TiledHashes(
        lambda *at: stored.get(at), lambda start, count: leaves[32 * start : 32 * (start + count)]
    )
    frontier = Frontier.read(70_000, hashes)
    assert frontier.root() == root_from_leaves(leaves[at : at + 32] for at in range(0, len(leaves), 32))


def test_missing_tiles_are_said_to_be_missing(log_of_600: MemoryLog) -> None:
    """A proof is never made of whatever happens to be there."""
    log = log_of_600
    with pytest.raises(AuditError, match="missing"):
        inclusion_proof(0, 600, TiledHashes(lambda level, index: None, lambda start, count: b""))
    with pytest.raises(AuditError, match="rebuild"):
        tiles_completed_by(511, 512, log.read_leaves, lambda level, index: None)
