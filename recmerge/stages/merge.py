"""Merge adapters into one adapter, or into the base model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recmerge.config.merge import MergeConfig
from recmerge.errors import ArtifactError, UsageError, unknown_name
from recmerge.lm.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterFile
from recmerge.lm.adapter_write import AdapterShape, target_modules_of, write_adapter
from recmerge.lm.tensor_file import stored_type
from recmerge.merging import METHODS
from recmerge.merging.card import About, merged_card, model_readme, readme
from recmerge.merging.check import base_of, check_adapters, check_bases, check_weights, check_written
from recmerge.merging.combine import combine
from recmerge.merging.parts import LowRank, all_modules, distance, module_factors, norm
from recmerge.merging.rank_out import FOLD, parse_rank_out
from recmerge.merging.rank_out.fold import check_folded, fold, match_modules, open_base
from recmerge.merging.report import SCHEMA, describe, inference_cost, module_report, summarise
from recmerge.names import ADAPTER_CARD, ADAPTER_DIR, MERGE_REPORT_FILE, MODEL_DIR
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import Input, RunSpec, code_version
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan
from recmerge.stages.find_adapters import NamedAdapter, find_adapters, find_base_weights, is_hub_id, n_adapters, open_again

FAILED = ".failed"
_CODE = ("lm/tensor_file.py", "lm/adapter_file.py", "lm/adapter_write.py", "merging", "stages/merge.py", "stages/find_adapters.py")
MAX_RELATIVE_ERROR = 1e-6  # of a float32 result; lower dtypes round more by their nature


def plan_merge(config: MergeConfig, workspace: Workspace, reporter: Reporter, name: str | None = None) -> Plan:
    """Find and check the adapters, and say what the merge will be.

    Args:
        config: The settings.
        workspace: Where runs live.
        reporter: Told what is odd but allowed.
        name: The run's name; None: `<target>-<method>`.

    Returns:
        The plan.

    Raises:
        UsageError: The settings do not fit together, or a name is needed.
        ArtifactError: An adapter is missing, corrupt or does not fit the others.
    """
    weights, adapters = _admit(config, workspace, reporter)
    if name is None and config.target is None:
        raise UsageError("a merge of named adapters has no name of its own", fix="add --name NAME")
    inputs = [a.source for a in adapters]
    folded = parse_rank_out(config.rank_out).kind == FOLD
    if folded:
        inputs.append(_base_input(config, workspace, [a.file for a in adapters], reporter))
    resolved = {**config.resolved(), "weights": weights, "dtype": config.dtype or (None if folded else "float32")}
    domains = [config.target] if config.target else sorted({d for a in adapters for d in a.domains})
    spec = RunSpec(
        stage="merge",
        name=check_name(name or f"{config.target}-{config.method}"),
        config={**resolved, "domains": domains},
        inputs=tuple(inputs),
        code=code_version(*_CODE),
        ignore=("adapters", "sources", "base", "allow_base_mismatch"),  # what they name is in the inputs
    )
    made = (f"{MODEL_DIR}/config.json",) if folded else (f"{ADAPTER_DIR}/{WEIGHTS_FILE}", f"{ADAPTER_DIR}/{CONFIG_FILE}")
    return Plan(spec, (*made, MERGE_REPORT_FILE))


def run_merge(config: MergeConfig, run: Run) -> None:
    """Merge what `plan_merge` found into `adapter/` (or `model/`) and `merge_report.json`.

    Args:
        config: The settings.
        run: Where to write.

    Raises:
        ArtifactError: What was written is not what was meant; it is kept as `adapter.failed`.
    """
    sources = [i for i in run.spec.inputs if i.role.startswith("adapter-")]
    adapters = [open_again(s, run.workspace) for s in sources]
    weights = [float(w) for w in run.spec.config["weights"]]
    if config.method == "weaverec" and len(set(weights)) > 1:
        run.reporter.say("the weights are unequal: this is 'product', WeaveRec's own weights are equal")
    work = _fold_base if parse_rank_out(config.rank_out).kind == FOLD else _make_adapter
    modules = work(config, run, adapters, weights)
    report = _report(config, adapters, [s.path for s in sources], weights, modules)
    write_text(run.path / MERGE_REPORT_FILE, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    silent: list[str] = []
    run.facts.update(
        kind="model" if work is _fold_base else "adapter",
        domains=run.spec.config["domains"],
        method=config.method,
        weights=weights,
        rank_out=config.rank_out,
        base=base_of(adapters[0]),
        base_mismatch=check_bases(adapters, True, silent.append),
        merged_from=[a.label for a in adapters],
        modules=len(modules),
        **{k: report["summary"][k] for k in ("max_relative_error", "energy_lost")},
        added_parameters=report["inference"]["added_parameters"],
    )
    run.reporter.say(_summary(report))


def examine_merge(config: MergeConfig, workspace: Workspace, reporter: Reporter) -> dict[str, Any]:
    """Check the adapters and report what their merge would be, writing nothing.

    Args:
        config: The settings.
        workspace: Where runs live.
        reporter: Told what is odd but allowed.

    Returns:
        The report, as `merge_report.json` holds it, without what only writing shows.

    Raises:
        UsageError: The settings do not fit together.
        ArtifactError: An adapter is missing, corrupt or does not fit the others.
    """
    weights, named = _admit(config, workspace, reporter)
    adapters = [a.file for a in named]
    modules = {m: _merge_module(config, adapters, weights, m)[1] for m in all_modules(adapters)}
    return {**_report(config, adapters, [a.source.path for a in named], weights, modules), "warnings": list(getattr(reporter, "warnings", []))}


def _admit(config: MergeConfig, workspace: Workspace, reporter: Reporter) -> tuple[list[float], list[NamedAdapter]]:
    if config.method not in METHODS:
        raise UsageError(unknown_name("merge method", config.method, METHODS), fix="`recmerge merge --list-methods` lists them")
    weights = check_weights(config.weights, n_adapters(config))  # before anything is opened
    adapters = find_adapters(config, workspace)
    files = [a.file for a in adapters]
    check_bases(files, config.allow_base_mismatch, reporter.warn)
    check_adapters(files, METHODS[config.method], config.method, reporter.warn)
    return weights, adapters


def _base_input(config: MergeConfig, workspace: Workspace, adapters: Sequence[AdapterFile], reporter: Reporter) -> Input:
    said = base_of(adapters[0])
    noted = (adapters[0].card or {}).get("base", {}).get("ref")  # the name; peft's config holds the folder it was loaded from
    ref = config.base or noted or said["ref"]
    if ref is None:
        raise UsageError("rank-out fold needs a base model and the adapters name none", fix="add --base FOLDER")
    folder, digest = find_base_weights(ref, None if config.base else said["revision"], workspace)
    comparable = said["fingerprint"] is not None and is_hub_id(ref, workspace) == is_hub_id(noted or said["ref"], workspace)
    if comparable and said["fingerprint"] != digest:
        text = f"base {folder} is not the one that {adapters[0].label} was trained on"
        if not config.allow_base_mismatch:
            raise ArtifactError(text, fix="give the right --base, or add --allow-base-mismatch if you know it fits")
        reporter.warn(f"base mismatch allowed: {text}")
    modules, shapes = _layout(adapters)
    match_modules(open_base(folder), modules, shapes, adapters[0].fan_in_fan_out)
    return Input("base", Path(ref).name, workspace.relative(folder), digest)


def _layout(adapters: Sequence[AdapterFile]) -> tuple[list[str], list[tuple[int, int]]]:
    modules = all_modules(adapters)
    return modules, [next(a.shape(m) for a in adapters if m in a) for m in modules]


def _merge_module(config: MergeConfig, adapters: Sequence[AdapterFile], weights: Sequence[float], module: str) -> tuple[LowRank, dict[str, Any]]:
    factors = module_factors(adapters, module)
    merged, lost = combine(module, factors, weights, METHODS[config.method], parse_rank_out(config.rank_out))
    return merged, module_report(factors, merged, lost)


def _make_adapter(config: MergeConfig, run: Run, adapters: Sequence[AdapterFile], weights: Sequence[float]) -> dict[str, dict[str, Any]]:
    merged: dict[str, LowRank] = {}
    modules: dict[str, dict[str, Any]] = {}
    names = all_modules(adapters)
    with run.reporter.bar("merging", len(names)) as bar:
        for name in names:
            merged[name], modules[name] = _merge_module(config, adapters, weights, name)
            bar.advance()
    folder = run.path / ADAPTER_DIR
    dtype = stored_type(config.dtype)
    shape = AdapterShape(
        base_model=adapters[0].base_ref,
        target_modules=target_modules_of(adapters),
        task_type=adapters[0].config.get("task_type"),
        revision=base_of(adapters[0])["revision"],
        fan_in_fan_out=adapters[0].fan_in_fan_out,
    )
    about = About(config.method, weights, config.rank_out, run.spec.config["domains"])
    factors = {m: (d.B, d.A) for m, d in merged.items()}
    write_adapter(folder, factors, shape, dtype, merged_card(adapters, about, "adapter"), readme(run.spec.name, adapters, about))
    try:
        written = AdapterFile(folder)
        check_written(written, merged, dtype)
        for name, delta in merged.items():
            modules[name]["relative_error"] = _relative_error(written, name, delta)
    except ArtifactError:
        folder.rename(folder.with_name(folder.name + FAILED))
        raise
    worst = max(m["relative_error"] for m in modules.values())
    if dtype == "F32" and worst > MAX_RELATIVE_ERROR:
        run.reporter.warn(f"the changes cancel so far that float32 keeps them only to a relative error of {worst:.1e}")
    return modules


def _relative_error(written: AdapterFile, module: str, meant: LowRank) -> float:
    """Compare what plain peft would add to the weight, scaling * B @ A of the file, with the exact change."""
    b, a = written.factors(module)
    rank = meant.rank
    size = norm(meant)
    found = LowRank(b[:, :rank] * written.scaling(module), a[:rank])
    return distance(found, meant) / size if size else 0.0


def _fold_base(config: MergeConfig, run: Run, adapters: Sequence[AdapterFile], weights: Sequence[float]) -> dict[str, dict[str, Any]]:
    base = open_base(run.input_path("base"))
    names, shapes = _layout(adapters)
    matches = match_modules(base, names, shapes, adapters[0].fan_in_fan_out)
    modules: dict[str, dict[str, Any]] = {}
    folder = run.path / MODEL_DIR
    with run.reporter.bar("folding", len(names)) as bar:

        def delta_of(module: str) -> LowRank:
            merged, modules[module] = _merge_module(config, adapters, weights, module)
            bar.advance()
            return merged

        folded = fold(base, matches, delta_of, folder, config.dtype)
    for module, lost in folded.errors.items():
        modules[module] |= {"relative_error": lost.weight, "relative_error_of_change": lost.delta}
    about = About(config.method, weights, config.rank_out, run.spec.config["domains"])
    card = base.folder / ADAPTER_CARD
    known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    write_text(folder / ADAPTER_CARD, json.dumps({**known, **merged_card(adapters, about, "model")}, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", model_readme(run.spec.name, adapters, about))
    try:
        check_folded(folder, folded.checksums)
    except ArtifactError:
        folder.rename(folder.with_name(folder.name + FAILED))
        raise
    return dict(sorted(modules.items()))


def _report(
    config: MergeConfig, adapters: Sequence[AdapterFile], paths: Sequence[str], weights: Sequence[float], modules: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "method": config.method,
        "weights": list(weights),
        "rank_out": config.rank_out,
        "adapters": describe(adapters, paths),
        "summary": summarise(modules, len(adapters)),
        "inference": inference_cost(adapters, modules, parse_rank_out(config.rank_out).kind == FOLD),
        "modules": modules,
    }


def _summary(report: dict[str, Any]) -> str:
    s = report["summary"]
    added = report["inference"]["added_parameters"]
    text = f"merged {len(report['adapters'])} adapters by '{report['method']}': {s['modules']} modules, {added:,} added parameters"
    if s["energy_lost"]:
        text += f", {s['energy_lost']:.2%} of the energy lost"
    return text + f", largest relative error {s['max_relative_error']:.1e}"
