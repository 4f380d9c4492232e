"""`rankings.parquet`: user_id, item_id, score, rank, is_target."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recmerge.data.dataset import Example
from recmerge.errors import ArtifactError
from recmerge.names import IS_TARGET, ITEM_ID, RANK, RANKINGS_FILE, SCORE, USER_ID


def write_scores(folder: Path, asked: Sequence[Example], scores: np.ndarray) -> None:
    """Rank by scores: 1 + the number of other candidates scored strictly higher.

    Args:
        folder: The run's.
        asked: B users with C candidates each.
        scores: (B, C), higher is better.

    Raises:
        ArtifactError: A score is infinite or no number.
    """
    broken = ~np.isfinite(scores).all(1)
    if broken.any():
        raise ArtifactError(
            f"scores of {int(broken.sum())} of {len(asked)} users are not all numbers, e.g. of user {asked[int(broken.argmax())].user_id}",
            fix="look for weights that are not numbers, or for a precision too narrow: --set precision=fp32",
        )
    counted = np.where(_first_places(asked, scores.shape), scores, -np.inf)  # a candidate listed twice counts once
    ranks = 1 + (counted[:, None, :] > scores[:, :, None]).sum(-1)
    write_rankings(folder, asked, scores, ranks.astype(np.float64))


def write_rankings(folder: Path, asked: Sequence[Example], scores: np.ndarray, ranks: np.ndarray) -> None:
    """Write the file; a candidate that is listed twice has one row.

    Args:
        folder: The run's.
        asked: B users with C candidates each.
        scores: (B, C); NaN where there is none.
        ranks: (B, C) from 1; NaN where there is none.
    """
    frame = pl.DataFrame(
        {
            USER_ID: [e.user_id for e in asked for _ in e.candidates],
            ITEM_ID: [c for e in asked for c in e.candidates],
            SCORE: scores.reshape(-1),
            RANK: ranks.reshape(-1),
            IS_TARGET: [c == e.target for e in asked for c in e.candidates],
        }
    )
    frame = frame.filter(pl.Series(_first_places(asked, scores.shape).reshape(-1)))
    frame = frame.with_columns(pl.col(SCORE).fill_nan(None), pl.col(RANK).fill_nan(None).cast(pl.Int32))
    frame.write_parquet(folder / RANKINGS_FILE, compression="zstd", statistics=False)


def _first_places(asked: Sequence[Example], shape: tuple[int, ...]) -> np.ndarray:
    """Return (B, C): is this the candidate's first place in its list? The published draws repeat some."""
    first = np.zeros(shape, dtype=bool)
    for row, example in enumerate(asked):
        seen: set[str] = set()
        for column, item in enumerate(example.candidates):
            first[row, column] = item not in seen
            seen.add(item)
    return first
