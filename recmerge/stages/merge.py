"""Merge adapters into one adapter, or into the base model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recmerge.config.merge import MergeConfig
from recmerge.errors import ArtifactError, UsageError, unknown_name
from recmerge.evaluation.report.merge import merge_page
from recmerge.lm.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterFile
from recmerge.lm.adapter_write import AdapterShape, target_modules_of, write_adapter
from recmerge.lm.tensor_file import stored_type
from recmerge.merging import METHODS
from recmerge.merging.assemble import assemble, layout_of
from recmerge.merging.card import merged_card, model_readme, readme
from recmerge.merging.check import base_of, check_adapters, check_bases, check_weights, check_written
from recmerge.merging.combine import Merger, warm_up
from recmerge.merging.freed_memory import reuse_freed_memory
from recmerge.merging.parts import Delta, all_modules
from recmerge.merging.rank_out import FOLD, parse_rank_out
from recmerge.merging.rank_out.fold import check_folded, fold, match_modules, open_base
from recmerge.merging.recipe import Recipe, check_options, complete
from recmerge.merging.report import merge_report, module_report, report_text, summary_line
from recmerge.merging.side_by_side import side_by_side
from recmerge.names import ADAPTER_CARD, ADAPTER_DIR, MERGE_PAGE_FILE, MERGE_REPORT_FILE, MODEL_DIR
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import Input, RunSpec, code_version, sha256_json
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan
from recmerge.stages.find_adapters import NamedAdapter, find_adapters, find_base_weights, is_hub_id, n_adapters

FAILED = ".failed"
CHECK_DIR = "runs/check"  # what --check reports; no run, so the same name is written again
_CODE = ("lm/tensor_file.py", "lm/adapter_file.py", "lm/adapter_write.py", "merging", "stages/merge.py", "stages/find_adapters.py")
MAX_RELATIVE_ERROR = 1e-6  # of a float32 result; lower dtypes round more by their nature


@dataclass(frozen=True)
class MergePlan(Plan):
    """What a merge is about to do.

    Args:
        recipe: How.
        adapters: The adapters, open and checked: these very files are merged, whatever is put in their place meanwhile.
    """

    recipe: Recipe
    adapters: tuple[AdapterFile, ...]


def plan_merge(config: MergeConfig, workspace: Workspace, reporter: Reporter, name: str | None = None) -> MergePlan:
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
    recipe, adapters = _admit(config, workspace, reporter)
    if name is None and config.target is None:
        raise UsageError("a merge of named adapters has no name of its own", fix="add --name NAME")
    inputs = [a.source for a in adapters]
    folded = parse_rank_out(recipe.rank_out).kind == FOLD
    if folded:
        inputs.append(_base_input(config, workspace, [a.file for a in adapters], reporter))
    spec = RunSpec(
        stage="merge",
        name=check_name(name or f"{config.target}-{config.method}"),
        config={**_resolved(config, recipe), "dtype": config.dtype or (None if folded else "float32")},
        inputs=tuple(inputs),
        code=code_version(*_CODE),
        seeds={"merge": recipe.options["seed"]} if "seed" in recipe.options else {},
        ignore=("adapters", "sources", "base", "allow_base_mismatch"),  # what they name is in the inputs
    )
    made = (f"{MODEL_DIR}/config.json",) if folded else (f"{ADAPTER_DIR}/{WEIGHTS_FILE}", f"{ADAPTER_DIR}/{CONFIG_FILE}")
    return MergePlan(spec, (*made, MERGE_REPORT_FILE, MERGE_PAGE_FILE), recipe, tuple(a.file for a in adapters))


def run_merge(config: MergeConfig, plan: MergePlan, run: Run) -> None:
    """Merge what `plan_merge` found into `adapter/` (or `model/`), and report on it in `merge_report.json` and `merge_report.html`.

    Args:
        config: The settings.
        plan: The adapters, and how they are merged.
        run: Where to write.

    Raises:
        ArtifactError: What was written is not what was meant; it is kept as `adapter.failed`.
    """
    adapters, recipe = plan.adapters, plan.recipe
    paths = [i.path for i in run.spec.inputs if i.role.startswith("adapter-")]
    if recipe.method == "weaverec" and len(set(recipe.weights)) > 1:
        run.reporter.say("the weights are unequal: this is 'product', WeaveRec's own weights are equal")
    merger = _warm(adapters, recipe, run.reporter)
    folded = merger.rank_out.kind == FOLD
    modules = (_fold_base if folded else _make_adapter)(config, run, merger)
    report = merge_report(recipe, adapters, paths, modules)
    _write_report(run.path, report, run.spec.name)
    run.volatile |= {MERGE_REPORT_FILE, MERGE_PAGE_FILE}  # they hold a measured time
    silent: list[str] = []
    run.facts.update(
        kind="model" if folded else "adapter",
        **asdict(recipe),
        base=base_of(adapters[0]),
        base_mismatch=check_bases(adapters, True, silent.append),
        merged_from=[a.label for a in adapters],
        modules=len(modules),
        **{k: report["summary"][k] for k in ("max_relative_error", "energy_lost", "kept") if k in report["summary"]},
        added_parameters=report["inference"]["added_parameters"],
    )
    run.reporter.say(summary_line(report))


def examine_merge(
    config: MergeConfig, workspace: Workspace, reporter: Reporter, name: str | None = None, folder: Path | None = None, *, dry_run: bool = False
) -> dict[str, Any]:
    """Check the adapters and report what their merge would be, without merging them.

    Args:
        config: The settings.
        workspace: Where runs live.
        reporter: Told what is odd but allowed.
        name: Of the merge it would be.
        folder: Where `merge_report.json` and `merge_report.html` go; None: runs/check/<name> in the workspace.
        dry_run: Write nothing.

    Returns:
        The report, as `merge_report.json` holds it, without what only writing shows; and where it lies.

    Raises:
        UsageError: The settings do not fit together.
        ArtifactError: An adapter is missing, corrupt or does not fit the others.
    """
    recipe, named = _admit(config, workspace, reporter)
    adapters = [a.file for a in named]
    default = f"{config.target}-{config.method}" if config.target else f"{config.method}-{sha256_json([asdict(recipe), *(a.sha256 for a in adapters)])[:8]}"
    label = check_name(name or default)
    merger = _warm(adapters, recipe, reporter)
    names = all_modules(adapters)
    with reporter.bar("examining", len(names)) as bar:
        modules = {}
        for module, row in zip(names, side_by_side(lambda m: module_report(merger.module(m)), names), strict=True):
            modules[module] = row
            bar.advance()
    report = merge_report(recipe, adapters, [a.source.path for a in named], modules)
    report["warnings"] = list(getattr(reporter, "warnings", []))
    folder = folder or workspace.root / CHECK_DIR / label
    written = [] if dry_run else _write_report(folder, report, label)
    outputs = [{"path": str(path.resolve()), "bytes": path.stat().st_size} for path in written]
    return {"run_dir": str(folder.resolve()), "version": None, "outputs": outputs, **report}


def _write_report(folder: Path, report: Mapping[str, Any], name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {MERGE_REPORT_FILE: report_text(report), MERGE_PAGE_FILE: merge_page(report, f"Merge {name}")}
    for file, text in texts.items():
        write_text(folder / file, text)
    return [folder / file for file in texts]


def _admit(config: MergeConfig, workspace: Workspace, reporter: Reporter) -> tuple[Recipe, list[NamedAdapter]]:
    if config.method not in METHODS:
        raise UsageError(unknown_name("merge method", config.method, METHODS), fix="`recmerge merge --list-methods` lists them")
    method = METHODS[config.method]
    weights = check_weights(config.weights, n_adapters(config), method)  # before anything is opened
    options = check_options(config.method, config.options(), config.rank_out)
    reuse_freed_memory()
    adapters = find_adapters(config, workspace)
    files = [a.file for a in adapters]
    check_bases(files, config.allow_base_mismatch, reporter.warn)
    check_adapters(files, method, config.method, reporter.warn)
    domains = [config.target] if config.target else sorted({d for a in adapters for d in a.domains})
    return complete(Recipe(config.method, weights, "", options, domains), config.rank_out, files), adapters


def _resolved(config: MergeConfig, recipe: Recipe) -> dict[str, Any]:
    """Return the settings to record: nothing left to default, and no option that the method does not have."""
    others = {k: v for k, v in config.resolved().items() if k not in config.options()}
    return {**others, "weights": list(recipe.weights), "rank_out": recipe.rank_out, **recipe.options, "domains": list(recipe.domains)}


def _warm(adapters: Sequence[AdapterFile], recipe: Recipe, reporter: Reporter) -> Merger:
    n_modules = warm_up(adapters, recipe)
    if n_modules == 0:
        return Merger(adapters, recipe)
    with reporter.bar("trimming", n_modules) as bar:
        return Merger(adapters, recipe, bar.advance)


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


def _make_adapter(config: MergeConfig, run: Run, merger: Merger) -> dict[str, dict[str, Any]]:
    modules: dict[str, dict[str, Any]] = {}
    adapters, recipe = merger.adapters, merger.recipe
    folder = run.path / ADAPTER_DIR
    layout = layout_of(adapters, recipe, stored_type(config.dtype))
    shape = AdapterShape(
        base_model=adapters[0].base_ref,
        target_modules=target_modules_of(adapters),
        task_type=adapters[0].config.get("task_type"),
        revision=base_of(adapters[0])["revision"],
        fan_in_fan_out=adapters[0].fan_in_fan_out,
    )
    try:
        with run.reporter.bar("merging", len(layout.shapes)) as bar:
            factors = assemble(merger, layout, modules, bar.advance)
            sha256 = write_adapter(folder, layout, factors, shape, merged_card(adapters, recipe, "adapter"), readme(run.spec.name, adapters, recipe))
        check_written(AdapterFile(folder), layout.modules)
        run.hashed[f"{ADAPTER_DIR}/{WEIGHTS_FILE}"] = sha256
    except ArtifactError:
        folder.rename(folder.with_name(folder.name + FAILED))
        raise
    worst = max(m["relative_error"] for m in modules.values())
    if layout.dtype == "F32" and worst > MAX_RELATIVE_ERROR:
        run.reporter.warn(f"the changes cancel so far that float32 keeps them only to a relative error of {worst:.1e}")
    return modules


def _fold_base(config: MergeConfig, run: Run, merger: Merger) -> dict[str, dict[str, Any]]:
    adapters, recipe = merger.adapters, merger.recipe
    base = open_base(run.input_path("base"))
    names, shapes = _layout(adapters)
    matches = match_modules(base, names, shapes, adapters[0].fan_in_fan_out)
    modules: dict[str, dict[str, Any]] = {}
    folder = run.path / MODEL_DIR
    with run.reporter.bar("folding", len(names)) as bar:

        def delta_of(name: str) -> Delta:
            module = merger.module(name)
            modules[name] = module_report(module)
            bar.advance()
            return module.delta

        folded = fold(base, matches, delta_of, folder, config.dtype)
    for module, lost in folded.errors.items():
        modules[module] |= {"relative_error": lost.weight, "relative_error_of_change": lost.delta}
    card = base.folder / ADAPTER_CARD
    known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    write_text(folder / ADAPTER_CARD, json.dumps({**known, **merged_card(adapters, recipe, "model")}, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", model_readme(run.spec.name, adapters, recipe))
    try:
        check_folded(folder, folded.sha256)
    except ArtifactError:
        folder.rename(folder.with_name(folder.name + FAILED))
        raise
    run.hashed.update({f"{MODEL_DIR}/{name}": sha256 for name, sha256 in folded.sha256.items()})
    return dict(sorted(modules.items()))
