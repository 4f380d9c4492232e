"""Keep memory that was freed for the next tensor: getting fresh pages from the system costs more than most of a merge's arithmetic."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # of glibc's malloc.h
_LARGEST = 2**30 - 1  # bytes; larger tensors still come from the system and go back to it
_KEPT = 2**26  # bytes that stay with the process


def reuse_freed_memory() -> bool:
    """Tell the C library to keep what is freed instead of giving it back after every tensor; it holds for the whole process.

    Returns:
        Whether it could be told: only glibc can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _KEPT), (_ARENA_MAX, 1)))
