"""Title vectors: read once, kept by content, and never the cause of an error."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recmerge.rankers import sentence_encoder
from recmerge.rankers.sentence_encoder import read_titles


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What a model was given to read that knows a title's length and first letter; its folder is model, and the cache is empty."""
    given: list[list[str]] = []

    def encode(folder: Path, titles: Sequence[str], device: str) -> tuple[np.ndarray, int]:
        given.append(list(titles))
        return np.asarray([[len(t), ord(t[0]) / 3] for t in titles], dtype=np.float32), 0

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(sentence_encoder, "encode", encode)
    monkeypatch.setenv("RECMERGE_CACHE", str(tmp_path / "cache"))
    sentence_encoder._identity.cache_clear()
    return given


def vectors(titles: Sequence[str], tmp_path: Path) -> np.ndarray:
    return read_titles(titles, str(tmp_path / "model")).vectors


def test_titles_are_read_once_whatever_their_order(read: list[list[str]], tmp_path: Path) -> None:
    first = vectors(["tent", "mat", "tent"], tmp_path)
    assert first.dtype == np.float32
    assert first[:, 0].tolist() == [4, 3, 4]
    assert (vectors(["mat", "tent"], tmp_path) == first[[1, 0]]).all()
    assert read == [["mat", "tent"]]
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".safetensors"]


def test_other_titles_and_another_model_are_read_anew(read: list[list[str]], tmp_path: Path) -> None:
    vectors(["tent"], tmp_path)
    vectors(["tent", "mat"], tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"other": 1}')
    sentence_encoder._identity.cache_clear()
    vectors(["tent"], tmp_path)
    assert read == [["tent"], ["mat", "tent"], ["tent"]]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_made_again(damage: str, read: list[list[str]], tmp_path: Path) -> None:
    whole = vectors(["tent", "mat"], tmp_path)
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    good = path.read_bytes()
    path.write_bytes({"cut": good[:-3], "flipped": good[:-1] + bytes([good[-1] ^ 1]), "empty": b"", "text": b"no tensors"}[damage])
    assert (vectors(["tent", "mat"], tmp_path) == whole).all()
    assert len(read) == 2
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_costs_time_only(read: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert (vectors(["tent"], tmp_path) == vectors(["tent"], tmp_path)).all()
    assert len(read) == 2
