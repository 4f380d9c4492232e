"""Evaluate rankings: metrics with intervals, paired tests, slices, a report."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.config.evaluate import EvalConfig
from recmerge.data.dataset import read_frame
from recmerge.data.other_candidates import STORED
from recmerge.errors import ArtifactError, ConfigError
from recmerge.evaluation.metrics import metric_names
from recmerge.evaluation.positions import listed_positions
from recmerge.evaluation.published import read_published
from recmerge.evaluation.slices import ALL, Mask, popularity_cuts, slices, user_facts
from recmerge.evaluation.summary import Evaluated, check_paired, compare, per_user_frame, summarise
from recmerge.evaluation.transfer import transfer
from recmerge.names import EVENTS_FILE, FUSED_FILE, IS_TARGET, ITEM_ID, METRICS_FILE, PER_USER_FILE, RANKINGS_FILE, REPORT_FILE, USER_ID, USERS_FILE
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import Input, Manifest, RunSpec, code_version, input_from_file, read_manifest, sha256_file
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.calibrate import calibrations, refuse_no_scores
from recmerge.stages.candidate_kinds import files_of, kind_of, read_places, refuse_mixed_kinds
from recmerge.stages.evaluate_pages import report_page
from recmerge.stages.execute import Plan
from recmerge.stages.fuse import FUSED, find_parts, find_twin, find_twins, fuse

KIND = "rankings"
_OUTPUTS = (METRICS_FILE, PER_USER_FILE, REPORT_FILE)
_STAGES = ("stages/calibrate.py", "stages/candidate_kinds.py", "stages/evaluate.py", "stages/evaluate_pages.py", "stages/fuse.py")
_RUN, _DATA, _BASELINE, _VALID = "run", "data", "baseline", "valid"


def plan_evaluate(config: EvalConfig, workspace: Workspace, name: str | None = None) -> Plan:
    """Find what is to be evaluated.

    Args:
        config: The settings.
        workspace: Where runs live.
        name: The evaluation's name; by default that of the first run, with `-vs-<baseline>` behind it.

    Returns:
        The plan.

    Raises:
        ArtifactError: A run or file is missing, or holds no rankings.
        ConfigError: The gate judges a metric that is not evaluated.
        UsageError: The runs were asked different kinds of candidates.
    """
    known = metric_names(config.ks, whole_list=not config.result_jsonl)
    if config.gate.metric not in (None, *known):
        raise ConfigError(f"gate.metric '{config.gate.metric}' is not evaluated with ks {config.ks}", fix=f"choose one of {', '.join(known)}")
    shown = config.resolved()
    if config.result_jsonl and config.test_jsonl:
        files = [("result", Path(config.result_jsonl)), ("test", Path(config.test_jsonl))]
        inputs = [input_from_file(role, path, workspace.relative(path)) for role, path in files]
        default = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(config.result_jsonl).stem).strip("-._") or "published"
    else:
        asked = [_found(workspace, ref) for ref in config.runs]
        parts = find_parts(workspace, config.fuse, asked)
        founds = list({f.path.resolve(): f for f in [*asked, *parts]}.values())
        baseline = _found(workspace, config.baseline) if config.baseline else None
        refuse_mixed_kinds([*founds, *([baseline] if baseline else [])], len(parts))
        twins = find_twins(workspace, parts, config.fit_on)
        labels = {key: [f.label for f in group] for key, group in (("runs", founds), ("fuse", parts), ("fit_on", twins))}
        shown |= {**labels, "baseline": baseline.label if baseline else None}
        valid = {f.label: t for f, t in zip(parts, twins, strict=True)}
        if config.calibrate:
            for found in [*founds, *([baseline] if baseline else [])]:
                refuse_no_scores(found)
                valid.setdefault(found.label, find_twin(workspace, found))
        asked_valid = [twin.as_input(f"{_VALID}:{label}", workspace) for label, twin in valid.items()]
        inputs = [*_inputs(workspace, founds, baseline), *asked_valid]
        fused = "-".join([*parts[0].manifest.facts.get("domains", [])[:1], FUSED]) if parts else ""
        default = (founds[0].manifest.name if asked else fused) + (f"-vs-{baseline.manifest.name}" if baseline else "")
    spec = RunSpec(
        stage="eval",
        name=check_name(name or default[:100].replace("..", "."), "evaluation name"),
        config=shown,
        inputs=tuple(inputs),
        code=code_version("evaluation", *_STAGES, "assets/templates/report.html.j2"),
        seeds={"bootstrap": config.seed},
        ignore=("gate",),
    )
    return Plan(spec, (*_OUTPUTS, FUSED_FILE) if config.fuse else _OUTPUTS)


def run_evaluate(config: EvalConfig, run: Run) -> None:
    """Evaluate and write `metrics.json`, `per_user.parquet` and `report.html`.

    Args:
        config: The settings.
        run: Where to write.

    Raises:
        ArtifactError: Runs cannot be compared, or a file was changed since it was made.
        DataError: Rankings or files that cannot be trusted.
    """
    fitted: dict[str, Any] | None = None
    ranked: dict[str, Found] = {}
    baseline: Evaluated | None = None
    if config.result_jsonl:
        results = [_published(config, run)]
    else:
        founds = {item.role: _reopened(run, item) for item in run.spec.inputs if not item.role.startswith((_DATA, _VALID))}
        keys = _keys({found.path: found.manifest for found in founds.values()})
        roles = {found.path: role for role, found in reversed(founds.items())}  # a run may also be the baseline
        evaluated = {path: _evaluated(config, run, roles[path], founds[roles[path]], keys[path]) for path in keys}
        results = list(evaluated.values())
        baseline = evaluated[founds[_BASELINE].path] if _BASELINE in founds else None
        if config.fuse:
            fused, fitted = _fused(config, run, {f.label: (f, evaluated[f.path]) for f in founds.values()})
            results = [*results, *fused] if config.runs else [*fused, *results]
        ranked = {key: founds[roles[path]] for path, key in keys.items()}
    document = _document(config, run, results, baseline)
    if fitted is not None:
        document["fusion"] = {"fitted": fitted, "added": _added(config, results)}
    if config.calibrate:
        twins = _twins(run)
        document["calibration"] = calibrations({key: (found.path, twins[found.label].path) for key, found in ranked.items()})
    write_text(run.path / METRICS_FILE, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    per_user_frame(results).write_parquet(run.path / PER_USER_FILE, compression="zstd")
    data = next((run.workspace.root / i.path for i in run.spec.inputs if i.role == f"{_DATA}:{_RUN}-1"), None)  # of the judged run, or its first part
    write_text(run.path / REPORT_FILE, report_page(run, document, results, ranked, data, config.seed))
    first = document["run"]
    run.facts |= {
        "kind": "metrics",
        "domains": first["domains"],
        "label": first["label"],
        "n_users": document["n_users"],
        "candidates": document["candidates"],
        "metrics": {name: figure["value"] for name, figure in document["metrics"].items()},
    }


def _found(workspace: Workspace, ref: str) -> Found:
    found = resolve(workspace, ref, ["infer"], kind="ranking run", wanted=KIND, hint="`recmerge infer NAME --adapter RUN` makes one")
    if found.manifest.facts.get("kind") != KIND or not (found.path / RANKINGS_FILE).is_file():
        raise ArtifactError(f"{found.path} holds no {RANKINGS_FILE}: it is a run of stage {found.manifest.stage}", fix="give a run of `recmerge infer`")
    return found


def _inputs(workspace: Workspace, founds: Sequence[Found], baseline: Found | None) -> list[Input]:
    """Return the runs, and behind each the data set that divides its users into slices, where it is still there."""
    roles = [(f"{_RUN}-{i}", found) for i, found in enumerate(founds, start=1)] + ([(_BASELINE, baseline)] if baseline else [])
    inputs = [found.as_input(role, workspace) for role, found in roles]
    for role, found in roles:
        data = _data_of(workspace, found.manifest)
        if data is not None:
            inputs.append(data.as_input(f"{_DATA}:{role}", workspace))
    return inputs


def _data_of(workspace: Workspace, manifest: Manifest) -> Found | None:
    for item in manifest.inputs:
        if item["role"] == _DATA:
            path = workspace.root / item["path"]
            known = read_manifest(path)
            if known is not None and known.content_sha256 == item["content_sha256"]:
                return Found(path, known)
    return None


def _reopened(run: Run, item: Input) -> Found:
    path = run.workspace.root / item.path
    manifest = read_manifest(path)
    recorded = {o["path"]: o["sha256"] for o in manifest.outputs} if manifest else {}
    for name in files_of(manifest) if manifest else (RANKINGS_FILE,):
        if name not in recorded or not (path / name).is_file() or recorded[name] != sha256_file(path / name):
            raise ArtifactError(f"{path / name} is not what its manifest records", fix="delete that version's folder and rank again")
    assert manifest is not None  # something is recorded
    return Found(path, manifest)


def _keys(runs: dict[Path, Manifest]) -> dict[Path, str]:
    """Name each run as shortly as is clear: by its name, with its version, or by its path; a fusion's own name goes to no run."""
    spellings = {path: (m.name, f"{m.name}@{m.version}", str(path)) for path, m in runs.items()}
    others = {path: [s for p, s in spellings.items() if p != path] for path in spellings}
    return {
        path: next(text for i, text in enumerate(own) if text != FUSED and all(text != other[i] for other in others[path])) for path, own in spellings.items()
    }


def _evaluated(config: EvalConfig, run: Run, role: str, found: Found, key: str) -> Evaluated:
    manifest, facts = found.manifest, found.manifest.facts
    rankings = read_frame(found.path / RANKINGS_FILE)
    data = next((i for i in run.spec.inputs if i.role == f"{_DATA}:{role}"), None)
    folder = run.workspace.root / data.path if data else None
    profile = (read_manifest(folder) or manifest).facts.get("profile") if folder else facts.get("profile")
    recorded = facts.get("candidates", {}).get("sha256")
    ranks, lists, sha = read_places(found.path, manifest, rankings, repeats=profile == "published")
    if recorded and recorded != sha and profile != "published":  # published lists are recorded with their repeats
        run.reporter.warn(f"the rankings of {key} hold other candidates than its manifest records ({sha[:12]}, recorded {recorded[:12]})")
    return Evaluated(
        key=key,
        label=str(facts.get("label") or manifest.name),
        ranks=ranks,
        ks=tuple(config.ks),
        candidates_sha256=sha,
        masks=_masks(run, rankings, folder, facts.get("split", "test"), key, len(ranks)),
        lists=lists,
        positions=None if lists is None else listed_positions(rankings, facts.get("mode", "score")),
        malformed=int(facts.get("malformed") or 0),
        off_list=int(facts.get("off_list") or 0),
        about={"run": _about(manifest, facts)},
    )


def _about(manifest: Manifest, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": str(facts.get("label") or manifest.name),
        "name": manifest.name,
        "version": manifest.version,
        "domains": list(facts.get("domains", [])),
        "mode": facts.get("mode", "score"),
        "split": facts.get("split", "test"),
        "candidates": kind_of(manifest),
    }


def _masks(run: Run, rankings: pl.DataFrame, folder: Path | None, split: str, key: str, n_users: int) -> dict[str, Mask]:
    if folder is None:
        run.reporter.warn(f"the data set of {key} is not in this workspace as it was ranked: no slices of users")
        return {ALL: np.ones(n_users, dtype=np.bool_)}
    users, events = read_frame(folder / USERS_FILE), read_frame(folder / EVENTS_FILE)
    return slices(user_facts(rankings.select(USER_ID, ITEM_ID, IS_TARGET), users, events, split), popularity_cuts(events))


def _fused(config: EvalConfig, run: Run, known: dict[str, tuple[Found, Evaluated]]) -> tuple[list[Evaluated], dict[str, Any]]:
    """Fuse the parts that the plan found with their twins."""
    twins = _twins(run)
    parts = [(known[label][1].key, known[label][0], twins[label]) for label in run.spec.config["fuse"]]
    return fuse(parts, known[run.spec.config["fuse"][0]][1], config.fusion_model, config.seed, run.path)


def _twins(run: Run) -> dict[str, Found]:
    """Return the rankings of validation events by the label of the run that they belong to."""
    return {i.role.partition(":")[2]: _reopened(run, i) for i in run.spec.inputs if i.role.startswith(f"{_VALID}:")}


def _added(config: EvalConfig, results: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """Compare the fusion of all with that without each language model: what does it add to what is free?"""
    whole = next(r for r in results if r.key == FUSED)
    without = [r for r in results if r.key.startswith(f"{FUSED} without ")]
    return [row for r in without for row in compare([whole], r, config.n_bootstrap, config.seed)]


def _published(config: EvalConfig, run: Run) -> Evaluated:
    assert config.result_jsonl is not None
    assert config.test_jsonl is not None
    result = read_published(Path(config.result_jsonl), Path(config.test_jsonl))
    if result.candidates_sha256 is None:
        run.reporter.warn("some test lines show no candidate list: off-list titles are not counted there, and the value of a random order is unknown")
    label = Path(config.result_jsonl).name
    return Evaluated(
        key=run.spec.name,
        label=label,
        ranks=result.ranks,
        ks=tuple(config.ks),
        candidates_sha256=result.candidates_sha256,
        masks={ALL: np.ones(len(result.ranks), dtype=np.bool_)},
        malformed=result.malformed,
        off_list=result.off_list,
        about={"run": {"label": label, "name": run.spec.name, "version": "", "domains": [], "mode": "generate", "split": ""}},
    )


def _document(config: EvalConfig, run: Run, results: Sequence[Evaluated], baseline: Evaluated | None) -> dict[str, Any]:
    if baseline is not None:
        for result in results:
            check_paired(result, baseline)  # before the work of the intervals
    blocks = {}
    with run.reporter.bar("evaluate", len(results)) as bar:
        for result in results:
            blocks[result.key] = summarise(result, config.n_bootstrap, config.seed)
            blocks[result.key]["candidates"]["kind"] = result.about["run"].get("candidates", STORED)
            bar.advance(note=result.key)
    compared = [r for r in results if baseline is not None and (r.key != baseline.key or len(results) == 1)]
    return {
        **blocks[results[0].key],
        "runs": blocks,
        "baseline": baseline.key if baseline else None,
        "comparisons": compare(compared, baseline, config.n_bootstrap, config.seed) if baseline else [],
        "transfer": transfer(compared, baseline, config.n_bootstrap, config.seed) if baseline else None,
        "bootstrap": {"n_samples": config.n_bootstrap, "seed": config.seed},
    }
