"""`recmerge eval`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmerge.cli.apps import app
from recmerge.cli.options import Common, command, split_list
from recmerge.errors import UsageError

if TYPE_CHECKING:
    from recmerge.stages.execute import Done

_COLUMNS = ("ndcg@1", "ndcg@5", "hr@5", "mrr")  # of the table on the terminal; the report shows all

_SHOWN = ("n_users", "metrics", "comparisons", "transfer", "malformed", "off_list", "ties", "fusion", "calibration")  # of metrics.json, with --json


@command(app, "eval")
def evaluate(
    common: Common,
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs of `recmerge infer`: names, name@vNNN or paths; the first is the one judged.", metavar="RUN...")
    ] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="Compare with this run, user by user.")] = None,
    fuse: Annotated[str | None, typer.Option("--fuse", help="Make one ranker of these runs, fitted on validation events: a,b,c.")] = None,
    fit_on: Annotated[str | None, typer.Option("--fit-on", help="With --fuse: their rankings of validation events, where not the newest: a,b,c.")] = None,
    calibrate: Annotated[
        bool | None, typer.Option("--calibrate", help="Scores as probabilities: how to scale them, calibration error; needs rankings of validation events.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 8 where the first run, but for the baseline, does not meet the settings under `gate`.")
    ] = False,
    ks: Annotated[str | None, typer.Option("--ks", help="Cut-offs, e.g. 1,3,5.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Bootstrap resamples.")] = None,
    result_jsonl: Annotated[Path | None, typer.Option("--result-jsonl", help="A result file in the published format instead of runs.")] = None,
    test_jsonl: Annotated[Path | None, typer.Option("--test-jsonl", help="The published test file it answers.")] = None,
) -> None:
    """Metrics with 95 % intervals, paired tests, slices of users, and an HTML report."""
    from recmerge.config.evaluate import EvalConfig
    from recmerge.stages.evaluate import plan_evaluate, run_evaluate
    from recmerge.stages.execute import execute
    from recmerge.stages.gate import check_gate

    flags = {
        "runs": runs or None,
        "baseline": baseline,
        "fuse": split_list(fuse),
        "fit_on": split_list(fit_on),
        "calibrate": calibrate,
        "ks": _cut_offs(ks),
        "n_bootstrap": samples,
        "result_jsonl": str(result_jsonl) if result_jsonl else None,
        "test_jsonl": str(test_jsonl) if test_jsonl else None,
    }
    config = common.load(EvalConfig, "eval", flags)
    plan = plan_evaluate(config, common.workspace, common.name)
    if common.dry_run:
        return common.preview([plan])
    done = execute(plan, partial(run_evaluate, config), common.workspace, common.reporter, again=common.again)
    metrics = _read(done)
    _show(common, metrics)
    report = done.path / "report.html"
    common.reporter.say(f"report: {report}")
    document = {key: metrics[key] for key in _SHOWN if key in metrics}
    common.finish(done, next_command=f"recmerge runs lineage eval/{done.manifest.name}", report=str(report), **document)
    if gate:
        if config.gate.no_worse and not metrics["comparisons"]:
            common.reporter.warn("--gate has no --baseline to compare with: only malformed output and gate.min_value were judged")
        check_gate(config, metrics)


def _cut_offs(text: str | None) -> list[int] | None:
    parts = split_list(text)
    if parts is None:
        return None
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--ks '{text}' is no list of whole numbers", fix="write e.g. --ks 1,3,5")
    return [int(part) for part in parts]


def _read(done: "Done") -> dict[str, Any]:
    import json

    from recmerge.names import METRICS_FILE

    document: dict[str, Any] = json.loads((done.path / METRICS_FILE).read_text(encoding="utf-8"))
    return document


def _show(common: Common, metrics: dict[str, Any]) -> None:
    """Show one row per run; every figure is a mean over its users."""
    from recmerge.evaluation.doubts import doubts

    names = [name for name in _COLUMNS if name in metrics["metrics"]]
    head = next(iter(metrics["metrics"]))
    names = [head, *(n for n in names if n != head)]
    differences = {row["run"]: row for row in metrics["comparisons"] if row["metric"] == head}
    columns = ["run", "users", f"{names[0]} [95 %]", *names[1:], "malformed", "off list"]
    if differences:
        columns.append(f"{head} - {metrics['baseline']} [95 %]")
    rows = []
    for key, block in metrics["runs"].items():
        first = block["metrics"][head]
        cells: list[object] = [key, block["n_users"], f"{first['value']:.4f} [{first['ci95'][0]:.4f}, {first['ci95'][1]:.4f}]"]
        cells += [f"{block['metrics'][name]['value']:.4f}" for name in names[1:]]
        cells += [block["malformed"], block["off_list"]]
        if differences:
            cells.append(_difference(differences.get(key), several=len(differences) > 1))
        rows.append(cells)
    for key, about in metrics.get("fusion", {}).get("fitted", {}).items():
        common.reporter.say(f"{key}: a {about['model']} fitted on {about['n_users']:,} validation users")
    common.reporter.table(f"{metrics['run']['label']}: {metrics['n_users']} users", columns, rows)
    for doubt in doubts(metrics):
        common.reporter.warn(doubt)
    if metrics["transfer"]:
        from recmerge.evaluation.transfer import alarm_lines
        from recmerge.stages.gate import judged_run

        judged = judged_run(metrics)
        mine = {**metrics["transfer"], "alarms": [row for row in metrics["transfer"]["alarms"] if row["run"] == judged]}
        for line in alarm_lines(mine, metrics["baseline"]):
            common.reporter.warn(line)
    for row in metrics.get("fusion", {}).get("added", []):
        if row["metric"] == head:
            common.reporter.say(f"{row['run']} - {row['baseline']}: {head} {_difference(row)}")


def _difference(row: dict[str, Any] | None, *, several: bool = False) -> str:
    if row is None:
        return ""
    adjusted = f" (Holm {row['p_holm']:.4f})" if several else ""
    return f"{row['difference']:+.4f} [{row['ci95'][0]:+.4f}, {row['ci95'][1]:+.4f}] p {row['p']:.4f}{adjusted}"
