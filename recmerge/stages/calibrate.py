"""`eval --calibrate`: the scores of each run as probabilities, fitted on its own ranking of validation events."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.dataset import read_frame
from recmerge.data.other_candidates import ALL
from recmerge.errors import UsageError
from recmerge.evaluation.calibration import Lists, calibration, padded
from recmerge.names import IS_TARGET, RANKINGS_FILE, SCORE, USER_ID
from recmerge.runs.resolve import Found
from recmerge.stages.candidate_kinds import kind_of


def refuse_no_scores(found: Found) -> None:
    """Refuse a run whose rankings have no score for each of a user's candidates.

    Args:
        found: A ranking.

    Raises:
        UsageError: It wrote answers, or ranks the whole catalogue and keeps the best.
    """
    written = found.manifest.facts.get("mode", "score") != "score"
    if written or kind_of(found.manifest) == ALL:
        why = "written answers" if written else "the best of a whole catalogue"
        raise UsageError(f"--calibrate: '{found.label}' holds {why}, not a score for every candidate", fix="leave the run or --calibrate out")


def calibrations(runs: Mapping[str, tuple[Path, Path]]) -> dict[str, dict[str, Any]]:
    """Fit and measure every run.

    Args:
        runs: By key the folders of a ranking and of its twin on validation events.

    Returns:
        By key, see `calibration`.
    """
    return {key: calibration(_lists(twin), _lists(folder)) for key, (folder, twin) in runs.items()}


def _lists(folder: Path) -> Lists:
    users = read_frame(folder / RANKINGS_FILE).group_by(USER_ID, maintain_order=True).agg(SCORE, pl.col(IS_TARGET).arg_max())
    return Lists(padded(users[SCORE].to_list()), users[IS_TARGET].to_numpy().astype(np.int64))
