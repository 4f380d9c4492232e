"""One evaluated system: its figures, their intervals, and its comparison with another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.errors import ArtifactError
from recmerge.evaluation.metrics import chance, metric_names, per_user
from recmerge.evaluation.positions import Positions, position_bias
from recmerge.evaluation.ranks import Ranks
from recmerge.evaluation.significance import figures, holm, paired_differences
from recmerge.names import USER_ID


@dataclass(frozen=True)
class Evaluated:
    """One system's result on U users.

    Args:
        key: Its unique name in the tables of one evaluation.
        label: What to call it to a reader.
        ranks: Where the targets stand.
        ks: Cut-offs.
        candidates_sha256: Hash over who was asked what; None where the candidates are unknown.
        masks: (U,) users of each slice; `all` is one of them.
        lists: What each user was asked, see `ranks.candidate_lists`; None where unknown.
        positions: Where choices and targets stood in the lists; None where unknown.
        malformed: Users whose output could not be read.
        off_list: Users whose output names something that is no candidate.
    """

    key: str
    label: str
    ranks: Ranks
    ks: tuple[int, ...]
    candidates_sha256: str | None
    masks: dict[str, npt.NDArray[np.bool_]]
    lists: pl.DataFrame | None = None
    positions: Positions | None = None
    malformed: int = 0
    off_list: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether every user's candidates are known, so that the metrics of whole lists are too."""
        return bool((self.ranks.n_candidates > 0).all())

    @property
    def names(self) -> list[str]:
        """The metrics, in the order of the tables."""
        return metric_names(self.ks, whole_list=self.known)

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """(U, M) every metric per user."""
        sizes = self.ranks.n_candidates if self.known else None
        return np.column_stack(list(per_user(self.ranks.n_better, self.ranks.n_tied, self.ks, sizes).values()))


def summarise(result: Evaluated, n_samples: int = 2000, seed: int = 42) -> dict[str, Any]:
    """Return one system's block of `metrics.json`.

    Args:
        result: What was evaluated.
        n_samples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        n_users, candidates, metrics, slices, malformed, off_list, ties (users whose target shares its score), unranked
        (users whose target was not ranked: misses), position (see `position_bias`; null where unknown) and chance (each metric for a random
        order; null where unknown).
    """
    n = result.ranks.n_candidates
    size = int(np.median(n)) if result.known else None  # a published list may name one item twice, or a title hold the separator
    return {
        "n_users": len(result.ranks),
        "candidates": {"n": size, "sha256": result.candidates_sha256},
        "metrics": figures(result.values, result.names, n_samples, seed),
        "slices": {
            name: {"n_users": int(mask.sum()), "metrics": figures(result.values[mask], result.names, n_samples, seed)} for name, mask in result.masks.items()
        },
        "malformed": result.malformed,
        "off_list": result.off_list,
        "ties": int((result.ranks.n_tied > 0).sum()),
        "unranked": int((~result.ranks.ranked).sum()),
        "position": position_bias(result.positions, result.ranks, n_samples, seed) if result.positions else None,
        "chance": chance(n, result.ks) if result.known else None,
        **result.about,
    }


def compare(systems: Sequence[Evaluated], baseline: Evaluated, n_samples: int = 2000, seed: int = 42) -> list[dict[str, Any]]:
    """Compare systems with a baseline on the same users and candidates.

    Args:
        systems: What to compare.
        baseline: With what.
        n_samples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        One entry per system and metric: run, baseline, metric, difference (system - baseline), ci95, p (bootstrap), p_permutation, each
        once more as p_holm and p_permutation_holm (adjusted for the number of systems compared on that metric), detectable (80 % power), n_users.

    Raises:
        ArtifactError: The users or candidates are not the same.
    """
    rows: list[dict[str, Any]] = []
    for system in systems:
        check_paired(system, baseline)
        for name, d in zip(system.names, paired_differences(system.values, baseline.values, n_samples, seed), strict=True):
            rows.append(
                {
                    "run": system.key,
                    "baseline": baseline.key,
                    "metric": name,
                    "difference": d.value,
                    "ci95": [d.low, d.high],
                    "p": d.p,
                    "p_permutation": d.p_permutation,
                    "detectable": d.detectable if np.isfinite(d.detectable) else None,
                    "n_users": d.n_users,
                }
            )
    for name in baseline.names:
        same = [row for row in rows if row["metric"] == name]
        for key in ("p", "p_permutation"):
            for row, adjusted in zip(same, holm([row[key] for row in same]), strict=True):
                row[f"{key}_holm"] = adjusted
    return rows


def check_paired(system: Evaluated, baseline: Evaluated) -> None:
    """Refuse to compare systems that were asked different questions.

    Args:
        system: One system.
        baseline: The other.

    Raises:
        ArtifactError: The users or candidates are not the same; the line says which.
    """
    ours, theirs = set(system.ranks.user_id.tolist()), set(baseline.ranks.user_id.tolist())
    if ours != theirs:
        first = sorted(ours ^ theirs)[0]
        raise ArtifactError(
            f"'{system.key}' and '{baseline.key}' rank different users: {len(ours - theirs)} only in the first, "
            f"{len(theirs - ours)} only in the second, e.g. '{first}'",
            fix="rank both with the same data set, --split and --users",
        )
    if system.candidates_sha256 != baseline.candidates_sha256:
        raise ArtifactError(
            f"'{system.key}' and '{baseline.key}' rank different candidates{_first_difference(system, baseline)}: "
            f"sha256 {str(system.candidates_sha256)[:12]} and {str(baseline.candidates_sha256)[:12]}",
            fix="rank both with the same version of the data set",
        )


def _first_difference(system: Evaluated, baseline: Evaluated) -> str:
    if system.lists is None or baseline.lists is None:
        return ""
    both = system.lists.join(baseline.lists, on=USER_ID, suffix="_other").sort(USER_ID)
    differ = both.filter((pl.col("items") != pl.col("items_other")) | (pl.col("target") != pl.col("target_other")))
    return f" for {len(differ)} of {len(both)} users, e.g. '{differ[0, USER_ID]}'" if len(differ) else ""


def per_user_frame(results: Sequence[Evaluated]) -> pl.DataFrame:
    """Return every user's result under every system.

    Args:
        results: The systems.

    Returns:
        run, user_id, target_rank (expected; null for a miss), n_better (null for a miss), n_tied, and each metric.
    """
    frames = []
    for result in results:
        better, rank = (pl.Series(v, dtype=pl.Float64).replace(float("inf"), None) for v in (result.ranks.n_better, result.ranks.target_rank))
        columns = {"user_id": result.ranks.user_id.tolist(), "target_rank": rank, "n_better": better.cast(pl.Int64), "n_tied": result.ranks.n_tied}
        metrics = dict(zip(result.names, result.values.T, strict=True))
        frames.append(pl.DataFrame({**columns, **metrics}).select(pl.lit(result.key).alias("run"), pl.all()))
    return pl.concat(frames)


def gate_failures(
    block: dict[str, Any],
    comparisons: Sequence[dict[str, Any]],
    *,
    metric: str,
    max_malformed: float,
    min_value: float | None,
    no_worse: bool,
) -> list[str]:
    """Name the conditions of a quality gate that one system's block does not meet.

    Args:
        block: From `summarise`.
        comparisons: That system's entries of `compare`; may be empty.
        metric: The metric that is judged.
        max_malformed: Largest share of users with malformed or off-list output.
        min_value: The metric must reach this; None: no such demand.
        no_worse: Fail where the metric's difference to the baseline is negative and its 95 % interval excludes zero.

    Returns:
        One line per failed condition.

    Raises:
        ValueError: The block does not hold that metric.
    """
    if metric not in block["metrics"]:
        raise ValueError(f"metric '{metric}' was not evaluated; there are: {', '.join(block['metrics'])}")
    failed = []
    bad = min(block["malformed"] + block["off_list"], block["n_users"])
    if bad / block["n_users"] > max_malformed:
        failed.append(f"{bad} of {block['n_users']} users ({bad / block['n_users']:.1%}) have malformed or off-list output, at most {max_malformed:.1%} may")
    value = block["metrics"][metric]["value"]
    if min_value is not None and value < min_value:
        failed.append(f"{metric} is {value:.4f}, at least {min_value:.4f} is wanted")
    for row in comparisons:
        if no_worse and row["metric"] == metric and row["ci95"][1] < 0:
            failed.append(f"{metric} is {-row['difference']:.4f} below '{row['baseline']}' (95 % interval {row['ci95'][0]:.4f} to {row['ci95'][1]:.4f})")
    return failed
