"""Everything that can rank stored candidates: floors, trained rankers, the language model itself."""

from pathlib import Path

from recmerge.errors import UsageError, unknown_name
from recmerge.rankers.cooccurrence import CooccurrenceRanker
from recmerge.rankers.popularity import PopularityRanker
from recmerge.rankers.protocol import Ranker, Scores
from recmerge.rankers.random import RandomRanker
from recmerge.rankers.tfidf import TfidfRanker

# A ranker of one's own: a file with a class of the protocol's shape, and a line here. Import torch inside its methods.
RANKERS: dict[str, type[Ranker]] = {
    "random": RandomRanker,
    "popularity": PopularityRanker,
    "tfidf": TfidfRanker,
    "cooccurrence": CooccurrenceRanker,
}
RANKER_DIR = "ranker"  # of a trained ranker's run

__all__ = ["RANKERS", "RANKER_DIR", "Ranker", "Scores", "load_ranker", "new_ranker", "save_ranker"]


def new_ranker(name: str, *, seed: int = 42) -> Ranker:
    """Return an untrained ranker.

    Args:
        name: A name of `RANKERS`.
        seed: Of whatever it draws.

    Returns:
        The ranker.

    Raises:
        UsageError: There is no such ranker.
    """
    if name not in RANKERS:
        raise UsageError(unknown_name("ranker", name, RANKERS), fix="`recmerge infer --list-rankers` lists them")
    return RANKERS[name](seed=seed)  # type: ignore[call-arg]  # a protocol says nothing of how a ranker is made


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
