"""Titles as vectors of a frozen sentence encoder, read once for each set of titles and kept in the user's cache folder."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recmerge.names import ITEM_ID, TITLE
from recmerge.rankers.per_domain import place_by_id
from recmerge.rankers.sentence_embeddings import encode, model_folder
from recmerge.rankers.sequential.purchases import Purchases

Vectors = npt.NDArray[np.float16]
Array = TypeVar("Array", bound=npt.NDArray[Any])

CACHE_VARIABLE = "RECMERGE_CACHE"
_PART, _DIGEST = "array", "sha256"
_BLOCK = 1 << 20


def titles_of(purchases: Purchases) -> list[str]:
    """Return the titles of a domain's I items, by number."""
    titles = dict(purchases.domain.items.select(ITEM_ID, TITLE).iter_rows())
    return [titles[item] for item in purchases.items]


def title_vectors(titles: Sequence[str], model: str) -> Vectors:
    """Read titles, or find what was read of the same ones before.

    Args:
        titles: I texts; equal ones get equal vectors.
        model: The name of a packaged sentence encoder, or the folder of one.

    Returns:
        (I, F) vectors of length 1 to the precision of float16, the same values whether they were cached or not.

    Raises:
        ArtifactError: There is no such model, or it cannot be read.
    """
    distinct = sorted(set(titles))
    folder = model_folder(model)
    told = json.dumps([_identity(folder), distinct]).encode()
    vectors = kept("titles", told, lambda: encode(folder, distinct)[0].astype(np.float16))
    row = place_by_id(distinct)
    return vectors[[row[title] for title in titles]]


def kept(kind: str, told: bytes, make: Callable[[], Array]) -> Array:
    """Return an array that is costly to make, from the cache where it was made before of the same.

    Args:
        kind: Of array; a folder of the cache.
        told: Everything that the array depends on.
        make: Makes it.

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


@lru_cache(maxsize=8)
def _identity(folder: Path) -> str:
    """Return the digest of a model's configuration, vocabulary and weights."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".txt", ".model", ".safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> Any:
    """Return the array of a file; None where it is missing or damaged."""
    try:
        with safe_open(path, "numpy") as file:
            found, told = file.get_tensor(_PART), (file.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return found if told == _digest(found) else None


def _write(path: Path, found: npt.NDArray[Any]) -> None:
    """Write an array whole or not at all; a folder that cannot be written to costs the next reader time and nothing else."""
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(handle)
        try:
            save_file({_PART: found}, name, metadata={_DIGEST: _digest(found)})
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def _digest(found: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest()
