"""`infer --candidates all`: rank the whole catalogue for every user, as only a ranker can that scores it at a bearable cost."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recmerge.data.candidates import Catalogue, codes
from recmerge.data.dataset import Domain, Example
from recmerge.data.other_candidates import ALL, catalogue_of, free_items, whole_catalogue_sha256
from recmerge.errors import UsageError
from recmerge.names import IS_TARGET, ITEM_ID, N_BETTER, N_CANDIDATES, N_TIED, RANK, RANKINGS_FILE, SCORE, TARGETS_FILE, USER_ID
from recmerge.rankers import RANKERS, CatalogueRanker
from recmerge.runs.directory import Run

N_KEPT = 100  # rows per user in `rankings.parquet`, beside the target
_CELLS = 1 << 22  # scores in memory at once


def refuse_unable(ranker: object, name: str) -> None:
    """Refuse what cannot score a whole catalogue.

    Args:
        ranker: Any ranker but a language model.
        name: What to call it.

    Raises:
        UsageError: It has no `score_all`; the line names the rankers that have.
    """
    if not isinstance(ranker, CatalogueRanker):
        able = sorted(known for known, made in RANKERS.items() if issubclass(made, CatalogueRanker))
        raise UsageError(
            f"--candidates all: {name} cannot score a whole catalogue, {', '.join(able) or 'no ranker'} can",
            fix="choose one of these with --ranker, or --candidates stored, popular or similar",
        )


def rank_catalogue(ranker: CatalogueRanker, domain: Domain, split: str, asked: Sequence[Example], run: Run, at_once: int = 10**6) -> None:
    """Rank everything a user may be asked about, and write `rankings.parquet` and `targets.parquet`.

    The first holds each user's best 100 items and the target; of items equally good at the hundredth place, the first by item id.
    The second holds user_id, n_candidates, n_better and n_tied, from which metrics are taken.

    Args:
        ranker: Fitted.
        domain: What is ranked.
        split: What is asked, "valid" or "test".
        asked: B questions, whose own candidates are not looked at.
        run: Where to write; gets the candidates' facts.
        at_once: Users at once, at most.
    """
    catalogue = catalogue_of(domain, split)
    step = max(1, min(at_once, _CELLS // len(catalogue.items)))
    rankings, counts = [], []
    with run.reporter.bar("ranking users", len(asked)) as bar:
        for start in range(0, len(asked), step):
            batch = asked[start : start + step]
            kept, counted = _rank_batch(ranker, catalogue, batch)
            rankings.append(kept)
            counts.append(counted)
            bar.advance(len(batch))
    targets = pl.concat(counts).sort(USER_ID)
    pl.concat(rankings).write_parquet(run.path / RANKINGS_FILE, compression="zstd", statistics=False)
    targets.write_parquet(run.path / TARGETS_FILE, compression="zstd", statistics=False)
    run.facts["candidates"] = {"n": max(targets[N_CANDIDATES]), "sha256": whole_catalogue_sha256(catalogue, asked), "kind": ALL}


def _rank_batch(ranker: CatalogueRanker, catalogue: Catalogue, batch: Sequence[Example]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of both files for a batch of users."""
    scores, free = ranker.score_all(batch, catalogue.items.to_list()), free_items(catalogue, batch)
    targets = codes(pl.Series([e.target for e in batch]), catalogue.items)
    own = scores[np.arange(len(batch)), targets][:, None]
    better = (free & (scores > own)).sum(axis=1)
    users = pl.Series([e.user_id for e in batch])
    counted = pl.DataFrame({USER_ID: users, N_CANDIDATES: free.sum(axis=1), N_BETTER: better, N_TIED: (free & (scores == own)).sum(axis=1) - 1})
    kept = [_best(*line) for line in zip(scores, free, targets, better, strict=True)]
    numbers, ranks = (np.concatenate([part[i] for part in kept]) for i in (0, 1))
    of = np.repeat(np.arange(len(batch)), [len(part[0]) for part in kept])
    rankings = pl.DataFrame(
        {
            USER_ID: users.gather(of),
            ITEM_ID: catalogue.items.gather(numbers),
            SCORE: scores[of, numbers],
            RANK: ranks.astype(np.int32),
            IS_TARGET: numbers == targets[of],
        }
    )
    return rankings, counted


def _best(scores: np.ndarray, free: np.ndarray, target: int, n_better: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the item numbers to keep of one user's scores (I,), best first, with their ranks: 1 + how many are strictly better."""
    numbers = np.flatnonzero(free)
    if len(numbers) > N_KEPT:
        numbers = numbers[scores[numbers] >= np.partition(scores[numbers], -N_KEPT)[-N_KEPT]]
    numbers = numbers[np.argsort(-scores[numbers], kind="stable")][:N_KEPT]
    ranks = 1 + np.searchsorted(-scores[numbers], -scores[numbers], side="left")
    if target in numbers:
        return numbers, ranks
    return np.append(numbers, target), np.append(ranks, 1 + n_better)
