"""The magnitude from which on an entry belongs to the largest ones: exact, without ever holding a whole task vector."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.dense import Select, row_blocks
from recmerge.merging.parts import LoraFactors, Matrix

PER_TENSOR, WHOLE = "per_tensor", "whole"
_LOW_BITS = 15  # of the 31 bits of a float32 magnitude: a first pass counts the upper 16, a second the rest
_PASSES = 2


def n_kept(n: int, density: float) -> int:
    """Return how many of `n` entries a density keeps: the whole part of density * n, at least one."""
    return max(1, math.floor(density * n * (1 + 1e-12)))  # 0.29 * 100 is a little under 29


def largest(vector: Callable[[], Iterable[Matrix]], n: int, density: float) -> float:
    """Return the k-th largest magnitude of a task vector, k = `n_kept`, in two passes over its blocks.

    Magnitudes are compared as float32, whose bit patterns are ordered as the numbers are: the first pass counts the
    upper 16 bits of each, the second the lower 15 bits of those that share the k-th one's upper bits.

    Args:
        vector: Gives the blocks of the task vector, the same ones at every call.
        n: Its entries.
        density: The fraction kept, in (0, 1].

    Returns:
        The threshold: entries at least as large are kept. Entries equal to it are all kept, so more than k may be.
    """
    k = n_kept(n, density)
    if k >= n:
        return 0.0
    upper, above = _locate(_histogram((_bits(block) >> _LOW_BITS for block in vector()), 2 ** (31 - _LOW_BITS)), k)
    alike = (bits[bits >> _LOW_BITS == upper] & (2**_LOW_BITS - 1) for bits in map(_bits, vector()))
    lower, _ = _locate(_histogram(alike, 2**_LOW_BITS), k - above)
    return float(np.array(upper << _LOW_BITS | lower, np.uint32).view(np.float32))


def per_tensor(factors: Sequence[LoraFactors], density: float) -> list[float]:
    """Return one threshold per adapter over one module's entries.

    Args:
        factors: M adapters' factors of the module.
        density: The fraction kept, in (0, 1].

    Returns:
        M thresholds, see `largest`.
    """
    return [largest(lambda f=f: (block for (block,) in row_blocks([f])), len(f.B) * f.A.shape[1], density) for f in factors]  # type: ignore[misc]


def whole_vectors(adapters: Sequence[AdapterFile], density: float, advance: Callable[[], None]) -> list[float]:
    """Return one threshold per adapter over the entries of all modules that it has.

    Args:
        adapters: M adapters.
        density: The fraction kept, in (0, 1].
        advance: Called `steps` times.

    Returns:
        M thresholds, see `largest`.
    """

    def blocks(adapter: AdapterFile) -> Iterator[Matrix]:
        for module in adapter.modules:
            yield from (block for (block,) in row_blocks([LoraFactors(*adapter.factors(module), adapter.scaling(module))]))
            advance()

    sizes = [sum(math.prod(a.shape(m)) for m in a.modules) for a in adapters]
    return [largest(lambda a=a: blocks(a), n, density) for a, n in zip(adapters, sizes, strict=True)]  # type: ignore[misc]


def steps(adapters: Sequence[AdapterFile]) -> int:
    """Return how many modules `whole_vectors` goes through."""
    return _PASSES * sum(len(a.modules) for a in adapters)


def trimmed(thresholds: Sequence[float]) -> Select:
    """Return what leaves only the entries at least as large as an adapter's threshold.

    Args:
        thresholds: M magnitudes, from `per_tensor` or `whole_vectors`.

    Returns:
        A choice for `merge_rows`.
    """
    limits = [np.float32(t) for t in thresholds]
    return lambda i, block: block * (np.abs(block.astype(np.float32)) >= limits[i])


def _bits(block: Matrix) -> NDArray[np.uint32]:
    """Return the bit patterns of the magnitudes in float32."""
    return np.abs(block.astype(np.float32)).ravel().view(np.uint32)


def _histogram(parts: Iterable[NDArray[Any]], n_bins: int) -> NDArray[np.int64]:
    """Count numbers below `n_bins`."""
    counts = np.zeros(n_bins, np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=n_bins)
    return counts


def _locate(counts: NDArray[np.int64], k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest entry, and how many entries lie above that bin."""
    from_top = np.cumsum(counts[::-1])
    i = int(np.searchsorted(from_top, k))
    return counts.size - 1 - i, int(from_top[i]) - int(counts[counts.size - 1 - i])
