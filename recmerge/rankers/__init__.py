"""Everything that can rank stored candidates: floors, trained rankers, the language model itself."""

from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recmerge.errors import ConfigError, UsageError, unknown_name
from recmerge.rankers.als import AlsRanker
from recmerge.rankers.attributes import AttributesRanker
from recmerge.rankers.bpr import BprRanker
from recmerge.rankers.cooccurrence import CooccurrenceRanker
from recmerge.rankers.ease import EaseRanker
from recmerge.rankers.itemknn import ItemKnnRanker
from recmerge.rankers.popularity import PopularityRanker
from recmerge.rankers.protocol import CatalogueRanker, Ranker, RankerSettings, Scores
from recmerge.rankers.random import RandomRanker
from recmerge.rankers.recent_popularity import RecentPopularityRanker
from recmerge.rankers.registry import Registry, sources
from recmerge.rankers.sentence_embeddings import SentenceEmbeddingsRanker
from recmerge.rankers.tfidf import TfidfRanker

# A ranker of one's own: a file with a class of the protocol's shape, and a line here. One that imports torch is named, not imported.
RANKERS: MutableMapping[str, type[Ranker]] = Registry(
    {
        "random": RandomRanker,
        "popularity": PopularityRanker,
        "recent_popularity": RecentPopularityRanker,
        "tfidf": TfidfRanker,
        "attributes": AttributesRanker,
        "sentence_embeddings": SentenceEmbeddingsRanker,
        "cooccurrence": CooccurrenceRanker,
        "itemknn": ItemKnnRanker,
        "ease": EaseRanker,
        "als": AlsRanker,
        "bpr": BprRanker,
        "gru4rec": "recmerge.rankers.gru4rec:Gru4RecRanker",
        "sasrec": "recmerge.rankers.sasrec:SasRecRanker",
        "recformer": "recmerge.rankers.recformer:RecFormerRanker",
        "llm_rec": "recmerge.rankers.llm_rec:LlmRecRanker",
        "tallrec": "recmerge.rankers.tallrec:TallRecRanker",
        "fdsa": "recmerge.rankers.fdsa:FdsaRanker",
        "s3rec": "recmerge.rankers.s3rec:S3RecRanker",
        "pinnerformer": "recmerge.rankers.pinnerformer:PinnerFormerRanker",
        "bert4rec": "recmerge.rankers.bert4rec:Bert4RecRanker",
        "fmlp_rec": "recmerge.rankers.fmlp_rec:FmlpRecRanker",
        "simplex": "recmerge.rankers.simplex:SimpleXRanker",
        "unisrec": "recmerge.rankers.unisrec:UniSRecRanker",
        "vq_rec": "recmerge.rankers.vq_rec:VqRecRanker",
        "mcrpl": "recmerge.rankers.mcrpl:McrplRanker",
    }
)
RANKER_DIR = "ranker"  # of a trained ranker's run

__all__ = [
    "RANKERS",
    "RANKER_DIR",
    "CatalogueRanker",
    "Ranker",
    "RankerSettings",
    "Scores",
    "load_ranker",
    "missing_modules",
    "new_ranker",
    "ranker_sources",
    "save_ranker",
]


def new_ranker(name: str, *, seed: int = 42, settings: Mapping[str, Any] | None = None) -> Ranker:
    """Return an untrained ranker.

    Args:
        name: A name of `RANKERS`.
        seed: Of whatever it draws.
        settings: Its own settings by name; the others keep their defaults.

    Returns:
        The ranker.

    Raises:
        ConfigError: It has no such setting, or the value is not allowed.
        UsageError: There is no such ranker, or what it needs is not installed.
    """
    if name not in RANKERS:
        raise UsageError(unknown_name("ranker", name, RANKERS), fix="`recmerge infer --list-rankers` lists them")
    missing = missing_modules(name)
    if missing:
        raise UsageError(f"ranker '{name}' needs {' and '.join(missing)}, not installed here", fix="pip install 'recmerge[floors]'")
    try:
        chosen = RANKERS[name].settings_class.model_validate(settings or {})
    except ValidationError as error:
        raise _explained(name, error) from None
    return RANKERS[name](chosen, seed=seed)


def ranker_sources(name: str) -> tuple[str, ...]:
    """Return the files below recmerge that the scores of a ranker of `RANKERS` depend on, so that another ranker's new line leaves its runs as they are."""
    return sources(RANKERS[name].__module__)


def missing_modules(name: str) -> list[str]:
    """Return the modules that a ranker of `RANKERS` needs and that are not installed."""
    return [module for module in RANKERS[name].needs if find_spec(module) is None]


def _explained(name: str, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return ConfigError(f"ranker.{str(first['msg']).removeprefix('Value error, ')}", fix="correct those values")
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return ConfigError(unknown_name(f"setting of ranker '{name}'", key, RANKERS[name].settings_class.model_fields), fix="correct or remove that key")
    return ConfigError(f"ranker.{key} = {first['input']!r}: {first['msg']}", fix="correct that value")


def save_ranker(ranker: Ranker, run_folder: Path) -> None:
    """Write a fitted ranker into a run's folder.

    Args:
        ranker: What to write.
        run_folder: The run's version folder.
    """
    folder = run_folder / RANKER_DIR
    folder.mkdir(exist_ok=True)
    ranker.save(folder)


def load_ranker(ranker: Ranker, run_folder: Path) -> None:
    """Let a ranker become the one that a run holds.

    Args:
        ranker: From `new_ranker`.
        run_folder: The run's version folder.

    Raises:
        ArtifactError: The folder holds no such ranker.
    """
    ranker.load(run_folder / RANKER_DIR)
