"""Which candidates a run was asked, and where its targets stand among them: runs of different kinds never stand in one table."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recmerge.data.dataset import read_frame
from recmerge.data.other_candidates import ALL, STORED
from recmerge.errors import UsageError
from recmerge.evaluation.ranks import Ranks, candidate_lists, candidate_sha256, counted_ranks, target_ranks
from recmerge.names import RANKINGS_FILE, TARGETS_FILE
from recmerge.runs.manifest import Manifest
from recmerge.runs.resolve import Found


def kind_of(manifest: Manifest) -> str:
    """Return the kind of candidates that a ranking run was asked; runs from before there were kinds were asked the stored ones."""
    return str(manifest.facts.get("candidates", {}).get("kind", STORED))


def files_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the files of a ranking run that its figures are taken from."""
    return (RANKINGS_FILE, TARGETS_FILE) if kind_of(manifest) == ALL else (RANKINGS_FILE,)


def read_places(folder: Path, manifest: Manifest, rankings: pl.DataFrame, *, repeats: bool) -> tuple[Ranks, pl.DataFrame | None, str]:
    """Find where a run's targets stand among all their candidates.

    Args:
        folder: The run's.
        manifest: The run's.
        rankings: What its `rankings.parquet` holds: every candidate, or of a whole catalogue the first places and the target.
        repeats: Accept that a user's list names one item twice, see `target_ranks`.

    Returns:
        The places; what each user was asked, None where that is the whole catalogue; and the hash over it.
    """
    if kind_of(manifest) == ALL:
        return counted_ranks(read_frame(folder / TARGETS_FILE)), None, str(manifest.facts["candidates"]["sha256"])
    ranks = target_ranks(rankings, manifest.facts.get("mode", "score"), repeats=repeats)
    return ranks, candidate_lists(rankings), candidate_sha256(rankings)


def refuse_mixed_kinds(founds: Sequence[Found], n_fused: int) -> None:
    """Refuse to put together what was asked different kinds of candidates.

    Args:
        founds: Ranking runs of one evaluation, its baseline among them.
        n_fused: How many of them are to be fused.

    Raises:
        UsageError: They are of several kinds, or runs of the whole catalogue are to be fused.
    """
    first = founds[0]
    kind = kind_of(first.manifest)
    for other in founds[1:]:
        if kind_of(other.manifest) != kind:
            raise UsageError(
                f"'{first.label}' was asked {kind} candidates and '{other.label}' {kind_of(other.manifest)} ones: they cannot stand in one table",
                fix="evaluate each kind by itself, or rank again with the same --candidates",
            )
    if n_fused and kind == ALL:
        raise UsageError(
            f"--fuse needs the score of every candidate, and '{first.label}' ranks the whole catalogue, of which only the first places are kept",
            fix="fuse runs of --candidates stored, popular or similar",
        )
