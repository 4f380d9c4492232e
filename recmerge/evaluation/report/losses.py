"""The part of a page about how the adapters behind it were trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recmerge.evaluation.report.charts import Line
from recmerge.evaluation.report.page import LineChart, Section

MAX_CURVES = 8
_MAX_POINTS = 100  # of a training curve; the loss of single steps is noise over which no two curves can be told apart

Curve = Sequence[tuple[float, float]]  # step and loss


@dataclass(frozen=True)
class Losses:
    """The losses of one training.

    Args:
        label: What was trained.
        train: (step, loss in nats per answer token) of the logged steps.
        valid: The same of the validations; empty where there were none.
    """

    label: str
    train: Curve
    valid: Curve


def loss_sections(losses: Sequence[Losses]) -> list[Section]:
    """Draw training and validation losses, of the first 8 trainings that have any.

    Args:
        losses: By training.

    Returns:
        A chart of each kind that there is.
    """
    sections: list[Section] = []
    notes = {
        "Training loss": "A hybrid's loss is over two domains, so curves of different sets are not a ranking.",
        "Validation loss": "Of the domains an adapter is trained on, each alike; not smoothed. The adapter of the lowest point is kept.",
    }
    for title, curves in (("Training loss", [(x.label, x.train) for x in losses]), ("Validation loss", [(x.label, x.valid) for x in losses])):
        present = [(label, curve) for label, curve in curves if curve]
        if not present:
            continue
        drawn, note = present[:MAX_CURVES], notes[title]
        if title == "Training loss":
            widths = [-(-len(curve) // _MAX_POINTS) for _, curve in drawn]
            drawn = [(label, window_means(curve, width)) for (label, curve), width in zip(drawn, widths, strict=True)]
            note = f"{_smoothing(widths)} {note}"
        if len(present) > MAX_CURVES:
            note += f" The first {MAX_CURVES} of {len(present)} adapters."
        lines = [Line(label, [step for step, _ in curve], [loss for _, loss in curve]) for label, curve in drawn]
        sections.append(LineChart(title, lines, "optimiser step", "loss (nats per answer token)", note, from_zero=False))
    return sections


def window_means(curve: Curve, width: int) -> list[tuple[float, float]]:
    """Average consecutive points of a curve.

    Args:
        curve: (step, loss).
        width: Points in one mean; 1 leaves the curve as it is. The last mean may be of fewer.

    Returns:
        (mean step, mean loss); a mean with a loss that is no number is none.

    >>> window_means([(1, 4.0), (2, 2.0), (3, 1.0)], 2)
    [(1.5, 3.0), (3.0, 1.0)]
    """
    windows = [curve[i : i + width] for i in range(0, len(curve), width)]
    return [(math.fsum(step for step, _ in w) / len(w), math.fsum(loss for _, loss in w) / len(w)) for w in windows]


def _smoothing(widths: Sequence[int]) -> str:
    if max(widths) == 1:
        return "Every logged step; not smoothed."
    low, high = min(widths), max(widths)
    return f"Each point is the mean of {low if low == high else f'{low} to {high}'} consecutive logged steps, so that a curve has at most {_MAX_POINTS} points."
