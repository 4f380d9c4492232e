"""What is costly to find again, kept in the user's cache folder by everything it depends on."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, npt.NDArray[Any]]

CACHE_VARIABLE = "RECMERGE_CACHE"
_DIGEST = "sha256"


def kept(kind: str, told: bytes, make: Callable[[], Arrays]) -> Arrays:
    """Return arrays that are costly to make, from the cache where they were made before of the same.

    Args:
        kind: Of arrays; a folder of the cache.
        told: Everything that the arrays depend on.
        make: Makes them, by name.

    Returns:
        What `make` returns or once returned; a damaged file is as good as none.
    """
    path = cache_folder() / kind / f"{hashlib.sha256(told).hexdigest()}.safetensors"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def cache_folder() -> Path:
    """Return where what is costly to find again is kept: $RECMERGE_CACHE, or `recmerge` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "recmerge"


def _read(path: Path) -> Arrays | None:
    """Return the arrays of a file; None where it is missing or damaged."""
    try:
        with safe_open(path, "numpy") as file:
            found, told = {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_DIGEST)  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return found if told == _digest(found) else None


def _write(path: Path, found: Arrays) -> None:
    """Write arrays whole or not at all; a folder that cannot be written to costs the next reader time and nothing else."""
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(handle)
        try:
            save_file({key: np.ascontiguousarray(array) for key, array in found.items()}, name, metadata={_DIGEST: _digest(found)})
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def _digest(found: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0{found[name].shape}\0{found[name].dtype}\0".encode())
        digest.update(np.ascontiguousarray(found[name]).tobytes())
    return digest.hexdigest()
