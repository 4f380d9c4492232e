"""Entries dropped at random, the same ones however the work is cut up."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recmerge.merging.dense import Select
from recmerge.merging.parts import Matrix

_WORD = 2**32  # one 32-bit word decides on one entry


def draw_key(seed: int, adapter: str, module: str) -> int:
    """Return the key of one adapter's draws in one module: 128 bits of a hash of all three.

    Args:
        seed: The user's.
        adapter: What names the adapter whatever its place in the list, e.g. the hash of its weights.
        module: The module's name.

    Returns:
        A key for numpy's Philox.
    """
    text = "\0".join((str(seed), adapter, module))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def adapter_keys(hashes: Sequence[str]) -> list[str]:
    """Name M adapters by the hashes of their weights; one that is given twice gets a number, so that its draws differ."""
    return [f"{h}-{hashes[:i].count(h)}" for i, h in enumerate(hashes)]


def dropped(density: float, keys: Sequence[int]) -> Select:
    """Return what keeps each entry with probability `density`, divided by it, and drops the others.

    Bits come from Philox, a counter-based generator, whose raw stream numpy keeps the same in all versions. Every row
    begins with a new 64-bit word, so that blocks of any height draw the same.

    Source: DARE (Yu et al. 2024, arXiv 2311.03099), section 3, with drop rate p = 1 - density.
    Departures: the probability is a multiple of 2^-32, at most 2.4e-10 below `density`, and entries are divided by that
        very probability, so that the expectation is the task vector.

    Args:
        density: The fraction kept, in (0, 1].
        keys: M keys, from `draw_key`.

    Returns:
        A choice for `merge_rows`; it must get the rows of each adapter in order.
    """
    if density >= 1:
        return lambda i, block: block
    limit = max(1, int(density * _WORD))
    streams = [np.random.Philox(key=key) for key in keys]

    def select(i: int, block: Matrix) -> Matrix:
        return block * (_WORD / limit) * (_words(streams[i], block.shape) < np.uint32(limit))

    return select


def _words(stream: np.random.Philox, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    rows, width = shape
    raw = stream.random_raw(rows * -(-width // 2)).astype("<u8", copy=False)
    return raw.view("<u4").reshape(rows, -1)[:, :width]
