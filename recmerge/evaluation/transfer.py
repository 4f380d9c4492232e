"""Negative transfer: over all users, or in a slice of them, a system is worse than the one it should improve on."""

from collections.abc import Sequence
from typing import Any

from recmerge.evaluation.significance import holm, paired_differences
from recmerge.evaluation.slices import ALL
from recmerge.evaluation.summary import Evaluated, check_paired

LEVEL = 0.05  # of the test behind an alarm


def transfer(systems: Sequence[Evaluated], baseline: Evaluated, n_samples: int = 2000, seed: int = 42) -> dict[str, Any]:
    """Compare systems with a baseline slice by slice, on the first metric.

    Args:
        systems: What to compare, e.g. a merged adapter.
        baseline: With what, e.g. the target's own adapter.
        n_samples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        `metric`; `rows`, one per system and slice: run, slice, n_users, difference (system - baseline), ci95, p (the larger of bootstrap and permutation
        test: resamples of a handful of users look surer than they are), p_holm (of a slice adjusted for the number of slices of that system, of all users
        p itself); `alarms`, the rows in which the system is worse with p_holm below 0.05.

    Raises:
        ArtifactError: The users or candidates are not the same.
    """
    rows: list[dict[str, Any]] = []
    for system in systems:
        check_paired(system, baseline)
        own: list[dict[str, Any]] = []
        for name, mask in system.masks.items():
            (d,) = paired_differences(system.values[mask, :1], baseline.values[mask, :1], n_samples, seed)
            p = max(d.p, d.p_permutation)
            own.append({"run": system.key, "slice": name, "n_users": d.n_users, "difference": d.value, "ci95": [d.low, d.high], "p": p, "p_holm": p})
        parts = [row for row in own if row["slice"] != ALL]
        for row, adjusted in zip(parts, holm([row["p"] for row in parts]), strict=True):
            row["p_holm"] = adjusted
        rows += own
    alarms = [row for row in rows if row["difference"] < 0 and row["p_holm"] < LEVEL]
    return {"metric": baseline.names[0], "rows": rows, "alarms": alarms}


def alarm_lines(found: dict[str, Any], baseline: str) -> list[str]:
    """Return one line per system that is worse than the baseline anywhere.

    Args:
        found: From `transfer`.
        baseline: What to call the baseline.

    Returns:
        The lines.
    """
    lines = []
    for run in dict.fromkeys(row["run"] for row in found["alarms"]):
        places = [f"{row['slice']} {row['difference']:+.4f}" for row in found["alarms"] if row["run"] == run]
        lines.append(f"negative transfer: '{run}' is below '{baseline}' on {found['metric']}: {', '.join(places)}")
    return lines
