"""`eval --gate`: whether the run that is judged, the first, is good enough."""

from typing import Any

from recmerge.config.evaluate import EvalConfig
from recmerge.errors import GateError
from recmerge.evaluation.slices import ALL
from recmerge.evaluation.summary import gate_failures


def check_gate(config: EvalConfig, metrics: dict[str, Any]) -> None:
    """Judge the first run of an evaluation that is not the baseline.

    Args:
        config: The settings.
        metrics: The document of `metrics.json`.

    Raises:
        GateError: A condition is not met; the line names it.
    """
    gate, key = config.gate, judged_run(metrics)
    block = metrics["runs"][key]
    metric = gate.metric or next(iter(block["metrics"]))
    compared = [row for row in metrics["comparisons"] if row["run"] == key]
    failed = gate_failures(block, compared, metric=metric, max_malformed=gate.max_malformed, min_value=gate.min_value, no_worse=gate.no_worse)
    if gate.no_worse_slice and metrics["transfer"]:
        found = metrics["transfer"]
        alarms = [row for row in found["alarms"] if row["run"] == key and row["slice"] != ALL]
        failed += [f"{found['metric']} is {-row['difference']:.4f} below the baseline in the slice {row['slice']}" for row in alarms]
    if failed:
        raise GateError(
            f"{key}: {'; '.join(failed)}", fix="look at the report's table of outputs and slices, or lower the gate's demand with --set gate.<key>=<value>"
        )


def judged_run(metrics: dict[str, Any]) -> str:
    """Return the key of the run that an evaluation is about: the first, unless that is what it is compared with."""
    return next((key for key in metrics["runs"] if key != metrics["baseline"]), next(iter(metrics["runs"])))
