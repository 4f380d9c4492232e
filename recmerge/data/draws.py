"""Counter-based random numbers: a draw depends on its key alone, never on the draws before it."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def splitmix64(values: Keys) -> Keys:
    """Scramble each 64-bit value into one that looks random.

    Source: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators".

    Args:
        values: Any shape.

    Returns:
        Same shape; a bijection, so different values stay different.
    """
    with np.errstate(over="ignore"):
        z = values + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def text_key(*parts: object) -> np.uint64:
    """Return one 64-bit key for a sequence of words and numbers."""
    text = "\x1f".join(str(p) for p in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def text_keys(texts: Sequence[str], base: np.uint64) -> Keys:
    """Return a 64-bit key per text, under a base key.

    Args:
        texts: N texts, e.g. user ids.
        base: Separates uses of the same texts, see `text_key`.

    Returns:
        N keys; each depends on its own text and the base alone.
    """
    salt = int(base).to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest() for t in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def combine(keys: Keys, numbers: npt.ArrayLike) -> Keys:
    """Return keys that depend on both; shapes broadcast.

    Args:
        keys: 64-bit keys.
        numbers: Whole numbers from 0 up, e.g. positions.

    Returns:
        The broadcast shape.
    """
    return splitmix64(keys ^ splitmix64(np.asarray(numbers).astype(np.uint64)))


def below(keys: Keys, limit: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Turn keys into whole numbers from 0 to `limit` - 1, all equally likely to within 2**-32.

    Args:
        keys: 64-bit keys.
        limit: 1 to 2**31 - 1; broadcasts.

    Returns:
        The broadcast shape.
    """
    high = keys >> np.uint64(32)
    return ((high * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
