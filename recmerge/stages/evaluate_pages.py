"""`eval`: what its report shows beside the figures: some users, the training of the adapters, where everything came from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recmerge.data.dataset import read_frame
from recmerge.evaluation.examples import MAX_RUNS, Shown, candidate_ranks, describe_users, pick_users, targets_of
from recmerge.evaluation.metrics import hit_curve
from recmerge.evaluation.report.losses import Losses
from recmerge.evaluation.report.provenance import lineage_section
from recmerge.evaluation.report.results import results_page
from recmerge.evaluation.summary import Evaluated
from recmerge.names import EVENTS_FILE, FUSED_FILE, ITEMS_FILE, LOSS_FILE, RANKINGS_FILE, TARGETS_FILE, VALID_LOSS_FILE
from recmerge.runs.directory import Run
from recmerge.runs.lineage import Lineage, trace
from recmerge.runs.resolve import Found

_CURVE_PLACES = 200  # of the hit rate's curve at most; a whole catalogue has thousands


def report_page(run: Run, document: dict[str, Any], results: Sequence[Evaluated], founds: Mapping[str, Found], data: Path | None, seed: int) -> str:
    """Return the page of an evaluation.

    Args:
        run: The evaluation.
        document: Its `metrics.json`.
        results: What was evaluated, the judged run first.
        founds: The ranking runs among them, by key.
        data: The data set that the judged run ranks; None: no users are shown.
        seed: Of the choice of users.

    Returns:
        One HTML page.
    """
    lengths = {r.key: min(int(r.ranks.n_candidates.max()), _CURVE_PLACES) for r in results}
    curves = {r.key: hit_curve(r.ranks.n_better, r.ranks.n_tied, lengths[r.key]) for r in results if lengths[r.key]}
    lineage = trace(run.workspace, list(founds.values())) if founds else None
    shown = _users(run, document, results, founds, data, seed) if data is not None else None
    losses = _losses(run, lineage) if lineage is not None else []
    return results_page(document, curves, lineage_section(lineage, run.spec.name) if lineage is not None else None, shown, losses)


def _users(run: Run, document: dict[str, Any], results: Sequence[Evaluated], founds: Mapping[str, Found], data: Path, seed: int) -> Shown:
    """Show users of the judged run, ranked by those runs that were asked the same as it."""
    first = results[0]
    same = [r for r in results if r.candidates_sha256 == first.candidates_sha256]
    second = next((r for r in same[1:] if r.key == document["baseline"]), next(iter(same[1:]), None))
    shown = [first, *([second] if second else []), *(r for r in same[1:] if r is not second)][:MAX_RUNS]
    picked = pick_users(first.ranks.user_id.tolist(), first.ranks.target_rank, second.ranks.target_rank if second else None, seed)
    users = list(picked.users)
    frames = [_rankings(run, r, founds) for r in shown]
    ranks = [candidate_ranks(frame, users, _mode(r, founds)) for frame, r in zip(frames, shown, strict=True)]
    items, events = read_frame(data / ITEMS_FILE), read_frame(data / EVENTS_FILE)
    examples = describe_users(picked, targets_of(frames[0], users), ranks, items, events, document["run"]["split"])
    return Shown(picked, examples, [r.key for r in shown], seed)


def _mode(result: Evaluated, founds: Mapping[str, Found]) -> str:
    """Say whence ranks come: of a whole catalogue only the best scores are stored, so their stored ranks count."""
    whole = result.key in founds and (founds[result.key].path / TARGETS_FILE).is_file()
    return "generate" if whole else str(result.about["run"]["mode"])


def _rankings(run: Run, result: Evaluated, founds: Mapping[str, Found]) -> pl.DataFrame:
    if result.key in founds:
        return read_frame(founds[result.key].path / RANKINGS_FILE)
    return read_frame(run.path / FUSED_FILE).filter(pl.col("run") == result.key)


def _losses(run: Run, lineage: Lineage) -> list[Losses]:
    """Read the curves of every training in a lineage that is still what it was."""
    trained = [node for node in lineage.nodes if node.stage == "train" and node.state == "ok"]
    names = [node.name for node in trained]
    found = []
    for node in trained:
        folder = run.workspace.root / node.id
        label = node.name if names.count(node.name) == 1 else f"{node.name}@{node.version}"
        found.append(Losses(label, _curve(run, folder / LOSS_FILE), _curve(run, folder / VALID_LOSS_FILE)))
    return found


def _curve(run: Run, path: Path) -> list[tuple[float, float]]:
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(float(row["step"]), float(row["loss"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        run.reporter.warn(f"{path} cannot be read ({error}): its curve is left out of the report")
        return []
