"""Read and write safetensors one tensor, or some rows of one, at a time, without torch."""

import hashlib
import json
import math
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from recmerge.errors import ArtifactError

_STORED: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_EXPONENT = {"F16": np.uint16(0x7C00), "BF16": np.uint16(0x7F80)}  # all ones in infinities and NaNs
_PIECE = 2**20  # bytes that are read at once where a tensor's bounds do not matter
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # a config's name -> the file's


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's entry in a file's header.

    Args:
        dtype: The file's spelling, e.g. "BF16".
        shape: Its sizes.
        start: First byte in the file.
        stop: The byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """One safetensors file; the header is read at once, tensors when asked for, by any thread.

    The file stays open, so that another one put in its place later is not read by mistake. It is not mapped into memory:
    what was read does not stay there.

    Args:
        path: The file.

    Raises:
        ArtifactError: It is truncated or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np") as f:  # its parser checks offsets, overlaps and the file's length
                self.metadata: dict[str, str] = f.metadata() or {}
            self._fd = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._fd)
            length = int.from_bytes(os.pread(self._fd, 8, 0), "little")
            header = json.loads(os.pread(self._fd, length, 8))
        except (SafetensorError, ValueError) as error:
            raise ArtifactError(f"{path} is truncated or no safetensors file: {error}", fix="copy or train it again") from error
        header.pop("__metadata__", None)
        base = 8 + length
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        self.tensors = {name: TensorInfo(e["dtype"], tuple(e["shape"]), base + e["data_offsets"][0], base + e["data_offsets"][1]) for name, e in entries}

    def scan(self) -> tuple[str, str | None]:
        """Read the whole file once.

        Returns:
            The hash of its bytes as they are now, as hex; and the first tensor of floats that holds NaN or infinity, or None.
        """
        digest = hashlib.sha256()
        bad: str | None = None
        at = 0
        for name, info in self.tensors.items():  # in the file's order, without gaps: the format allows none
            for piece in self._pieces(at, info.start):
                digest.update(piece.data)
            for piece in self._pieces(info.start, info.stop):
                digest.update(piece.data)
                if bad is None and not _is_finite(piece, info.dtype):
                    bad = name
            at = info.stop
        for piece in self._pieces(at, os.fstat(self._fd).st_size):
            digest.update(piece.data)
        return digest.hexdigest(), bad

    def pieces(self, name: str) -> Iterator[NDArray[np.uint8]]:
        """Give a tensor's bytes as they are stored, some 2^20 at a time, never cutting a number."""
        info = self.tensors[name]
        yield from self._pieces(info.start, info.stop)

    def floats(self, name: str) -> Iterator[NDArray[np.floating]]:
        """Give a tensor's numbers exactly, in float32 or float64, one after the other, some 2^20 bytes of the file at a time; see `read`."""
        dtype = self.float_type(name)
        for piece in self.pieces(name):
            yield widen(piece.view(_STORED[dtype]), dtype)

    def read(self, name: str) -> NDArray[np.float64]:
        """Return a tensor in float64, which holds every stored float exactly.

        Args:
            name: The tensor.

        Returns:
            Its numbers, in its own shape.

        Raises:
            ArtifactError: It is quantised or of integers.
        """
        return self._numbers(name, 0, None).astype(np.float64, copy=False)

    def read_narrow(self, name: str) -> NDArray[np.floating]:
        """Return a tensor in the smaller one of float32 and float64 that holds its numbers exactly; see `read`."""
        return self._numbers(name, 0, None)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Return rows `start` to `stop` - 1 of a tensor (its entries along the first axis) in float64; see `read`."""
        return self._numbers(name, start, stop).astype(np.float64, copy=False)

    def _numbers(self, name: str, start: int, stop: int | None) -> NDArray[np.floating]:
        """Return some rows, or all, in float32 or float64."""
        dtype, info = self.float_type(name), self.tensors[name]
        shape, row = info.shape, 0
        if stop is not None:
            shape = (min(stop, shape[0]) - start, *shape[1:])
            row = math.prod(shape[1:]) * _STORED[dtype].itemsize
        stored = np.empty(shape, _STORED[dtype])
        self._fill(stored, info.start + start * row)
        return widen(stored, dtype)

    def float_type(self, name: str) -> str:
        """Return the dtype of a tensor of floats.

        Args:
            name: The tensor.

        Returns:
            The file's spelling, e.g. "BF16".

        Raises:
            ArtifactError: It is quantised or of integers.
        """
        dtype = self.tensors[name].dtype
        if dtype not in _STORED:
            raise ArtifactError(f"{self.path}: tensor {name} is {dtype}, allowed: {', '.join(_STORED)}", fix="give unquantised weights")
        return dtype

    def _pieces(self, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
        for at in range(start, stop, _PIECE):
            piece = np.empty(min(_PIECE, stop - at), np.uint8)
            self._fill(piece, at)
            yield piece

    def _fill(self, target: NDArray[Any], offset: int) -> None:
        """Read as many bytes as an array has."""
        left = target.reshape(-1).view(np.uint8).data
        while len(left):
            n = os.preadv(self._fd, [left], offset)
            if n == 0:
                raise ArtifactError(f"{self.path} became shorter while it was read", fix="let nothing write to it, and try again")
            left, offset = left[n:], offset + n


class TensorWriter:
    """Writes a safetensors file in one pass, its header first, and hashes it on the way; use it as a context manager.

    Args:
        path: The new file.
        tensors: name -> (file dtype, shape), in the order in which `write` will be called.
        metadata: Texts for the header.
        read_back: Read every byte again after it was written, and compare it.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str], *, read_back: bool = False) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        offset = 0
        for name, (dtype, shape) in tensors.items():
            size = math.prod(shape) * width_of(dtype)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format aligns the first tensor to 8 bytes
        self._digest, self._missing = hashlib.sha256(), offset
        self._path, self._at, self._read_back = path, 0, read_back
        self._found = np.empty(_PIECE, np.uint8)
        self._file = path.open("w+b", buffering=0)
        self._append(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if error is None and self._missing:
            raise ValueError(f"{self._missing} bytes fewer were written than the header says")

    def write(self, stored: NDArray[np.generic]) -> None:
        """Append the next tensor, or the next part of it, already in the file's dtype (see `narrow`)."""
        self._missing -= stored.nbytes
        if stored.size:
            self._append(np.ascontiguousarray(stored).data.cast("B"))

    @property
    def sha256(self) -> str:
        """Hash of what was written so far, as hex."""
        return self._digest.hexdigest()

    def _append(self, data: bytes | memoryview) -> None:
        whole = memoryview(data)
        for start in range(0, len(whole), _PIECE):  # hashed, written and compared while it is in the core's cache
            piece = whole[start : start + _PIECE]
            self._digest.update(piece)
            left = piece
            while len(left):
                left = left[self._file.write(left) :]
            if self._read_back:
                self._compare(piece)
            self._at += len(piece)

    def _compare(self, meant: memoryview) -> None:
        found = self._found[: len(meant)]
        n = os.preadv(self._file.fileno(), [found.data], self._at)
        if n != len(meant) or not _same(found, np.frombuffer(meant, np.uint8)):
            raise ArtifactError(f"{self._path} does not hold what was written to it, from byte {self._at:,} on", fix="check the disk and try again")


def _same(found: NDArray[np.uint8], meant: NDArray[np.uint8]) -> bool:
    """Compare bytes, eight at a time."""
    words = len(meant) // 8 * 8
    return np.array_equal(found[:words].view(np.uint64), meant[:words].view(np.uint64)) and np.array_equal(found[words:], meant[words:])


def _is_finite(piece: NDArray[np.uint8], dtype: str) -> bool:
    if dtype in _EXPONENT:
        return not ((piece.view("<u2") & _EXPONENT[dtype]) == _EXPONENT[dtype]).any()
    return dtype not in _STORED or bool(np.isfinite(piece.view(_STORED[dtype])).all())


def width_of(dtype: str) -> int:
    """Return the bytes of one number of a file's dtype."""
    widths = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    return widths.get(dtype, 1)  # 8-bit floats


def narrow(values: NDArray[np.floating], dtype: str) -> NDArray[np.generic]:
    """Round numbers once to a file dtype.

    Args:
        values: Numbers, any float type.
        dtype: "F64", "F32", "F16" or "BF16".

    Returns:
        What the file stores; BF16 as uint16 bit patterns. Numbers too large become infinite.
    """
    with np.errstate(over="ignore"):
        if dtype != "BF16":
            return values.astype(_STORED[dtype], copy=False)
        bits = values.astype("<f4").view("<u4")
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype("<u2")
    quiet_nan = ((bits >> np.uint32(16)) | np.uint32(0x40)).astype("<u2")  # rounding up could turn a NaN into an infinity
    return np.where(np.isnan(bits.view("<f4")), quiet_nan, rounded)


def widen(stored: NDArray[np.generic], dtype: str) -> NDArray[np.floating]:
    """Return stored numbers exactly, in float32 or, of "F64", float64; the inverse of `narrow` without its rounding."""
    if dtype == "BF16":
        return (stored.astype("<u4") << np.uint32(16)).view("<f4")
    return cast(NDArray[np.floating], stored.astype("<f4") if dtype == "F16" else stored)


def unit_roundoff(dtype: str) -> tuple[float, float]:
    """Return by how much `narrow` may move a number: relative to it, and at least, among the smallest numbers."""
    bits, least = {"F64": (53, -1075), "F32": (24, -150), "F16": (11, -25), "BF16": (8, -134)}[dtype]
    return 2.0**-bits, 2.0**least


def stored_type(dtype: str | None, own: str = "F32") -> str:
    """Return the file's spelling of a config's dtype, `own` for None."""
    return own if dtype is None else DTYPES[dtype]
