"""The part of an evaluation's page about scores as probabilities."""

from typing import Any

from recmerge.evaluation.report.page import Section, Table


def calibration_sections(found: dict[str, dict[str, Any]], labels: dict[str, str]) -> list[Section]:
    """Show what two fitted numbers make of each run's scores.

    Args:
        found: The block `calibration` of `metrics.json`.
        labels: By run what to call it.

    Returns:
        The sections.
    """
    measured = ("ece_before", "ece_by_temperature", "ece", "log_loss_before", "log_loss_by_temperature", "log_loss", "log_loss_of_chance")
    rows = [
        [labels[key], "" if c["temperature"] is None else f"{c['temperature']:.3g}", f"{c['by_place']:.2f}", f"{c['n_fitted_on']:,}"]
        + [f"{c[name]:.4f}" for name in measured]
        for key, c in found.items()
    ]
    head = ["run", "temperature", "weight of the place", "fitted on", "ECE before", "by temperature alone", "by both", "log-loss before"]
    head += ["by temperature alone", "by both", "of chance"]
    note = (
        "Probabilities are the softmax of a user's scores over the temperature, less the weight times the log of the place; both are fitted on "
        "validation users alone and change no order. No temperature: the size of the scores tells nothing beside their order. ECE: expected "
        "calibration error of the first place, 15 bins of equal width; 0 is right. Log-loss in nats per user."
    )
    first = next(iter(found))
    bins = [[f"{b['sure']:.3f}", f"{b['right']:.3f}", f"{b['n']:,}"] for b in found[first]["bins"]]
    sure = f"Users of '{labels[first]}' by how sure the first place is, after both."
    return [
        Table("Scores as probabilities", head, rows, note),
        Table("How sure, and how often right", ["mean probability of the first place", "share that is right", "users"], bins, sure),
    ]
