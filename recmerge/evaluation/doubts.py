"""What a reader of an evaluation should doubt, in words for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

_MOSTLY = 0.9  # share of users whose target ties, above which a ranker has hardly anything to say
_FEW = 50  # users


def doubts(metrics: Mapping[str, Any]) -> list[str]:
    """Name what makes figures worth less than they look.

    Args:
        metrics: The document of `metrics.json`.

    Returns:
        Sentences without a capital and a full stop.
    """
    blocks: Mapping[str, Any] = metrics["runs"]
    found = []
    if len({(block["n_users"], block["candidates"]["sha256"]) for block in blocks.values()}) > 1:
        found.append("these runs were not asked the same questions: their users or candidates differ, so their figures cannot be compared with each other")
    for key, block in blocks.items():
        share = block["ties"] / block["n_users"]
        if share > _MOSTLY:
            found.append(f"'{key}' gives the target and other candidates one score for {share:.0%} of the users: it has hardly anything to tell them apart by")
    few = min(block["n_users"] for block in blocks.values())
    if few < _FEW:
        found.append(f"only {few} {'user was' if few == 1 else 'users were'} asked: an interval says little of others")
    fitted = metrics.get("fusion", {}).get("fitted", {})
    for key, about in fitted.items():
        losses = about["held_out_log_loss"]
        if losses[about["model"]] >= losses["uniform"]:
            found.append(
                f"'{key}' is no better than guessing on users it was not fitted on ({losses[about['model']]:.3f} nats, guessing {losses['uniform']:.3f})"
            )
    return found
