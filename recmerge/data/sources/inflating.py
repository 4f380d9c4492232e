"""Decompress a gzipped file in a process of its own, for threads contend for the interpreter's lock; as a script it needs no other module of ours.

The process writes whole lines into the slots of a file that both processes map, and the length of each to its output; a length of 0 ends the file. For each
slot that may be written again its input holds one byte, and it ends when its input does. What it cannot do (damage, a line longer than a slot, a bomb) it
leaves to its caller: it ends without that 0.
"""

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from isal import igzip

MAX_RATIO = 200  # real text compresses 3 to 20 times; more is a bomb
RATIO_FROM = 64 << 20
_SLOT = 1 << 19  # bytes
_N_SLOTS = 8
_LENGTH = 4  # bytes of a slot's length, least significant first


def inflated(path: Path) -> Iterator[bytes]:
    """Read a gzipped file that another process decompresses.

    Args:
        path: The file.

    Yields:
        Blocks of whole lines, the last line with its line end; an empty one where the file ends. Without that the caller has to read the rest,
        or to find out what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="recmerge-", ignore_cleanup_errors=True) as folder:
        shared = Path(folder) / "slots"
        shared.write_bytes(bytes(_N_SLOTS * _SLOT))
        words = [sys.executable, "-P", __file__, str(path), str(shared), str(_SLOT)]
        with (
            shared.open("r+b") as f,
            mmap.mmap(f.fileno(), 0) as slots,
            subprocess.Popen(words, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
        ):
            try:
                yield from _taken(process, slots)
            finally:
                process.kill()


def _taken(process: subprocess.Popen[bytes], slots: mmap.mmap) -> Iterator[bytes]:
    """Take what the process writes until it ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    start = 0
    while len(told := process.stdout.read(_LENGTH)) == _LENGTH:
        block = slots[start : start + int.from_bytes(told, "little")]
        with suppress(OSError):  # it has ended; what it wrote before still counts
            process.stdin.write(b"+")
        yield block
        start = (start + _SLOT) % (_N_SLOTS * _SLOT)


def _inflate(path: Path, shared: Path, size: int) -> None:
    """Decompress a file for the process that started this one."""
    with shared.open("r+b") as f, mmap.mmap(f.fileno(), 0) as slots, path.open("rb") as zipped, igzip.IGzipFile(fileobj=zipped) as stream:
        rest, written = b"", 0
        for start in _free_slots(size):
            end, cut = start + len(rest), 0
            slots[start:end] = rest
            while not cut and (n_read := _read_into(slots, end, start + size, stream)):
                end, written = end + n_read, written + n_read
                if written > RATIO_FROM and written > MAX_RATIO * zipped.tell():
                    return
                cut = slots.rfind(b"\n", start, end) + 1
            if not cut and end == start + size:
                return
            if not cut:
                if slots[start:end].strip():
                    slots[end] = ord("\n")
                    _tell(end + 1 - start)
                _tell(0)
                return
            rest = slots[cut:end]
            _tell(cut - start)


def _read_into(slots: mmap.mmap, start: int, end: int, stream: igzip.IGzipFile) -> int:
    with memoryview(slots) as view, view[start:end] as free:
        return stream.readinto(free)


def _free_slots(size: int) -> Iterator[int]:
    """Return where slots begin that may be written, as long as somebody reads them."""
    n_free, start = _N_SLOTS, 0
    while n_free or (n_free := len(os.read(sys.stdin.fileno(), _N_SLOTS))):
        yield start
        n_free, start = n_free - 1, (start + size) % (_N_SLOTS * size)


def _tell(length: int) -> None:
    os.write(sys.stdout.fileno(), length.to_bytes(_LENGTH, "little"))


if __name__ == "__main__":
    _inflate(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
