"""The part of an evaluation's page about scores as probabilities."""

from typing import Any

from recmerge.evaluation.report.page import Section, Table


def calibration_sections(found: dict[str, dict[str, Any]], labels: dict[str, str]) -> list[Section]:
    """Show what one temperature makes of each run's scores.

    Args:
        found: The block `calibration` of `metrics.json`.
        labels: By run what to call it.

    Returns:
        The sections.
    """
    measured = ("ece_before", "ece", "log_loss_before", "log_loss", "log_loss_of_chance")
    rows = [[labels[key], f"{c['temperature']:.3g}", f"{c['n_fitted_on']:,}", *(f"{c[name]:.4f}" for name in measured)] for key, c in found.items()]
    head = ["run", "temperature", "fitted on", "ECE before", "ECE", "log-loss before", "log-loss", "of chance"]
    note = (
        "The softmax of a user's scores over the temperature, which is fitted on validation users alone. ECE: expected calibration error of the first place, "
        "15 bins of equal width; 0 is right. Log-loss in nats per user."
    )
    first = next(iter(found))
    bins = [[f"{b['sure']:.3f}", f"{b['right']:.3f}", f"{b['n']:,}"] for b in found[first]["bins"]]
    sure = f"Users of '{labels[first]}' by how sure the first place is, after the temperature."
    return [
        Table("Scores as probabilities", head, rows, note),
        Table("How sure, and how often right", ["mean probability of the first place", "share that is right", "users"], bins, sure),
    ]
