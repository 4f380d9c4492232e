from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.errors import ArtifactError
from recmerge.rankers import missing_modules, sentence_encoder
from recmerge.rankers.sentence_embeddings import SentenceEmbeddingsRanker, SentenceEmbeddingsSettings

VECTORS = {"north": (0, 1), "east": (1, 0), "northeast": (sqrt(0.5), sqrt(0.5)), "south": (0, -1)}
real_model = pytest.mark.skipif(bool(missing_modules("sentence_embeddings")), reason="needs the extra floors")


def domain(titles: dict[str, str]) -> Domain:
    empty = pl.DataFrame()
    return Domain("sports", "clean", pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}), empty, empty, empty, empty)


def scores(ranker: SentenceEmbeddingsRanker, history: str, candidates: str) -> list[float]:
    return ranker.score([Example("sports", "u", tuple(history), candidates[0], tuple(candidates))])[0].tolist()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The titles that a model of four words was given to read."""
    given: list[str] = []

    def encode(folder: Path, titles: Sequence[str], device: str) -> tuple[np.ndarray, int]:
        given.extend(titles)
        return np.asarray([VECTORS[t] for t in titles], dtype=np.float32).reshape(-1, 2), 1

    monkeypatch.setattr(sentence_encoder, "encode", encode)
    monkeypatch.setattr(sentence_encoder, "model_folder", Path)
    monkeypatch.setenv("RECMERGE_CACHE", str(tmp_path / "cache"))
    return given


def compass(decay: float = 1.0) -> SentenceEmbeddingsRanker:
    ranker = SentenceEmbeddingsRanker(SentenceEmbeddingsSettings(decay=decay))
    ranker.fit(domain({"n": "north", "e": "east", "x": "northeast", "s": "south", "m": "north"}))
    return ranker


def test_cosines_by_hand(read: list[str]) -> None:
    assert scores(compass(), "n", "nexs") == pytest.approx([1, 0, sqrt(0.5), -1])
    assert scores(compass(), "ne", "nexs") == pytest.approx([sqrt(0.5), sqrt(0.5), 1, -sqrt(0.5)])


def test_a_later_purchase_counts_more_by_hand(read: list[str]) -> None:
    assert scores(compass(0.5), "ne", "ne") == pytest.approx([0.5 / sqrt(1.25), 1 / sqrt(1.25)])
    assert scores(compass(0.5), "n?e", "ne") == pytest.approx([0.5 / sqrt(1.25), 1 / sqrt(1.25)])  # what is unknown is no purchase


@pytest.mark.parametrize("history", ["", "?", "ns"])
def test_who_has_no_direction_gets_zeros(read: list[str], history: str) -> None:
    assert scores(compass(), history, "nex?") == [0, 0, 0, 0]


def test_equal_titles_are_read_once_and_tie(read: list[str]) -> None:
    ranker = compass()
    assert read == ["east", "north", "northeast", "south"]
    assert scores(ranker, "xe", "n")[0] == scores(ranker, "xe", "m")[0]
    assert ranker.facts == {"titles_cut": {"sports": 1}}
    again = compass()
    assert len(read) == 4  # what was read before is kept
    assert (again.learnt["sports"].vectors == ranker.learnt["sports"].vectors).all()
    assert again.facts == ranker.facts


@real_model
def test_the_packaged_model_reads_meaning() -> None:
    ranker = SentenceEmbeddingsRanker()
    long = "tent " * 300
    ranker.fit(domain({"t": "4-person dome tent", "c": "camping shelter for families", "l": "matte red lipstick", "x": long}))
    shelter, lipstick = scores(ranker, "t", "cl")
    assert shelter > lipstick + 0.2
    assert ranker.facts == {"titles_cut": {"sports": 1}}
    assert np.linalg.norm(ranker.learnt["sports"].vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


@real_model
def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for model, what in (
        (str(tmp_path), "cannot be read as a sentence-transformers model"),
        (str(tmp_path / "none"), "there is no sentence-transformers model"),
    ):
        with pytest.raises(ArtifactError, match=what):
            SentenceEmbeddingsRanker(SentenceEmbeddingsSettings(model=model)).fit(domain({"t": "tent"}))
