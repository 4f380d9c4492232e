"""The part of an evaluation's page about fused rankers."""

from typing import Any

from recmerge.evaluation.report.page import Section, Table


def fusion_sections(fusion: dict[str, Any]) -> list[Section]:
    """Say what was fitted, what weighs how much, and what each language model adds to the others.

    Args:
        fusion: The block `fusion` of `metrics.json`.

    Returns:
        The sections.
    """
    fitted, added = fusion["fitted"], fusion["added"]
    rows = [[key, about["model"], f"{about['n_users']:,}", *_losses(about["held_out_log_loss"])] for key, about in fitted.items()]
    note = (
        "Fitted on validation events alone; log-loss in nats on validation users that the model was not fitted on (five folds). "
        "Logit: a weighted sum of views of each score; network: the same with a hidden layer beside it."
    )
    sections: list[Section] = [Table("How the fused rankers were fitted", ["ranker", "model", "users", "guessing", "logit", "network"], rows, note)]
    if added:
        shown = [
            [row["baseline"], row["metric"].upper(), f"{row['difference']:+.4f} [{row['ci95'][0]:+.4f}, {row['ci95'][1]:+.4f}]", f"{row['p']:.4f}"]
            for row in added
        ]
        explained = "The fusion of all less the fusion without one language model, paired over the same users: what that model adds to what is free."
        sections.append(Table("What the language models add", ["fusion of all, against", "metric", "difference", "p"], shown, explained))
    whole = next(iter(fitted.values()))["weights"]
    order = sorted(whole, key=lambda name: -abs(whole[name]))
    views = (
        "Weights of the logit, on features of deviation 1. z: the score within the user's list; log: its size; "
        "place: one over its place; top: holds the first place."
    )
    sections.append(Table("What weighs how much in the fusion of all", ["view of a score", "weight"], [[n, f"{whole[n]:+.3f}"] for n in order], views))
    return sections


def _losses(losses: dict[str, float]) -> list[str]:
    return [f"{losses[name]:.4f}" if name in losses else "" for name in ("uniform", "logit", "network")]
