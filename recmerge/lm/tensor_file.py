"""Read and write safetensors one tensor at a time, without torch."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from recmerge.errors import ArtifactError

_STORED: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
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
    """One safetensors file; the header is read at once, tensors when asked for.

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
            with path.open("rb") as raw:
                length = int.from_bytes(raw.read(8), "little")
                header = json.loads(raw.read(length))
        except (SafetensorError, ValueError) as error:
            raise ArtifactError(f"{path} is truncated or no safetensors file: {error}", fix="copy or train it again") from error
        header.pop("__metadata__", None)
        base = 8 + length
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        self.tensors = {name: TensorInfo(e["dtype"], tuple(e["shape"]), base + e["data_offsets"][0], base + e["data_offsets"][1]) for name, e in entries}
        self._bytes = np.memmap(path, np.uint8, "r")

    def is_float(self, name: str) -> bool:
        """Tell whether a tensor holds F64, F32, F16 or BF16 numbers."""
        return self.tensors[name].dtype in _STORED

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Return a tensor's bytes as they are stored."""
        info = self.tensors[name]
        return self._bytes[info.start : info.stop]

    def read(self, name: str) -> NDArray[np.float64]:
        """Return a tensor in float64, which holds every stored float exactly.

        Args:
            name: The tensor.

        Returns:
            Its numbers, in its own shape.

        Raises:
            ArtifactError: It is quantised or of integers.
        """
        info = self.tensors[name]
        if info.dtype not in _STORED:
            raise ArtifactError(f"{self.path}: tensor {name} is {info.dtype}, allowed: {', '.join(_STORED)}", fix="give unquantised weights")
        return widen(self.raw(name).view(_STORED[info.dtype]), info.dtype).reshape(info.shape)


class TensorWriter:
    """Writes a safetensors file in one pass; use it as a context manager.

    Args:
        path: The new file.
        tensors: name -> (file dtype, shape), in the order in which `write` will be called.
        metadata: Texts for the header.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        offset = 0
        for name, (dtype, shape) in tensors.items():
            size = math.prod(shape) * _width(dtype)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format aligns the first tensor to 8 bytes
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, stored: NDArray[np.generic]) -> None:
        """Append the next tensor, already in the file's dtype (see `narrow`)."""
        self._file.write(np.ascontiguousarray(stored).data.cast("B") if stored.size else b"")


def _width(dtype: str) -> int:
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
            return values.astype(_STORED[dtype])
        bits = values.astype("<f4").view("<u4")
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype("<u2")
    quiet_nan = ((bits >> np.uint32(16)) | np.uint32(0x40)).astype("<u2")  # rounding up could turn a NaN into an infinity
    return np.where(np.isnan(bits.view("<f4")), quiet_nan, rounded)


def widen(stored: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    """Return stored numbers in float64; the inverse of `narrow` without its rounding."""
    if dtype == "BF16":
        return (stored.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    return stored.astype(np.float64)


def stored_type(dtype: str | None, own: str = "F32") -> str:
    """Return the file's spelling of a config's dtype, `own` for None."""
    return own if dtype is None else DTYPES[dtype]
