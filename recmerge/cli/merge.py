"""`recmerge merge`."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmerge.cli.apps import app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from recmerge.config.merge import MergeConfig


@command(app, "merge")
def merge(
    common: Common,
    adapters: Annotated[str | None, typer.Option("--adapters", help="Run names, name@vNNN or adapter folders.", metavar="A,B,C")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Find the adapters: this domain's own and its hybrids.", metavar="T")] = None,
    sources: Annotated[str | None, typer.Option("--sources", help="The target's sources.", metavar="S1,S2")] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="One per adapter; by default the method's own: equal ones that sum to one, or 1.0 each.", metavar="0.4,0.3,0.3"),
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="The merging rule; see --list-methods.")] = None,
    rank_out: Annotated[
        str | None,
        typer.Option("--rank-out", help="cat (exact), svd:R (best rank R) or fold (into the base model); by default cat, or svd for methods of full rank."),
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="The base model of fold, where it is not the one the adapters name.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also put a copy of the result here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what --out holds.")] = False,
    allow_base_mismatch: Annotated[bool, typer.Option("--allow-base-mismatch", help="Merge adapters of different bases; recorded.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the adapters and report, in runs/check/ or --out; merge nothing.")] = False,
    list_methods: Annotated[bool, typer.Option("--list-methods", help="The names for --method.")] = False,
) -> Any:
    """Merge adapters into one, from their files alone; the base model is read only by --rank-out fold."""
    if list_methods:
        return _list_methods(common)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read once numpy is loaded: merging has threads of its own, and BLAS's would wait for each other
    from recmerge.config.merge import MergeConfig
    from recmerge.stages.execute import execute
    from recmerge.stages.merge import examine_merge, plan_merge, run_merge
    from recmerge.stages.publish import check_destination, publish

    flags = {
        "adapters": _names(adapters, "--adapters"),
        "target": target,
        "sources": _names(sources, "--sources"),
        "weights": parse_weights(weights),
        "method": method,
        "rank_out": rank_out,
        "dtype": dtype,
        "base": base,
        "allow_base_mismatch": allow_base_mismatch or None,
    }
    config = _anchored(common.load(MergeConfig, "merge", flags), common.config_ref, flags)
    if force and out is None:
        raise UsageError("--force is for --out, which is not given", fix="add --out DIR, or use --again for a new version")
    if check:
        if out is not None and out.exists() and not force:
            raise ConflictError(f"{out} exists", fix="choose another --out, or add --force to write the report into it")
        return _show(common, examine_merge(config, common.workspace, common.reporter, common.name, out, dry_run=common.dry_run))
    if out is not None:
        check_destination(out, force, config.rank_out == "fold")
    plan = plan_merge(config, common.workspace, common.reporter, common.name)
    if common.dry_run:
        return common.preview([plan])
    done = execute(plan, partial(run_merge, config, plan), common.workspace, common.reporter, again=common.again)
    facts = done.manifest.facts
    extra: dict[str, Any] = {}
    if out is not None:
        publish(done.path / facts["kind"], out, force)
        extra = {"published": str(out.absolute())}
        common.reporter.say(f"published {out.absolute()}")
    domain = config.target or next(iter(facts["domains"]), "DOMAIN")
    common.finish(done, f"recmerge infer {domain} --adapter {plan.spec.name}", **extra)
    return None


def parse_weights(text: str | None) -> list[float] | None:
    """Parse `--weights`: finite numbers between commas, nothing else.

    Args:
        text: As given; None where it was not.

    Returns:
        The numbers, or None.

    Raises:
        UsageError: A part is empty, no number, NaN or infinite.
    """
    if text is None:
        return None
    numbers = []
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = float("nan")
        if number - number != 0 or "_" in part:
            raise UsageError(f"--weights '{text}': '{part.strip()}' is not allowed, weights are finite numbers", fix="write e.g. --weights 0.4,0.3,0.3")
        numbers.append(number)
    return numbers


def _names(text: str | None, flag: str) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{flag} '{text}' has an empty name", fix=f"write e.g. {flag} sports,beauty_sports")
    return names


def _anchored(config: "MergeConfig", config_ref: str | None, flags: dict[str, Any]) -> "MergeConfig":
    """Read the folders that a YAML names from the YAML's own folder; run names stay names."""
    if config_ref is None or not Path(config_ref).is_file():
        return config
    root = Path(config_ref).resolve().parent

    def anchor(ref: str) -> str:
        return str(root / ref) if "/" in ref and (root / ref).is_dir() else ref

    changed: dict[str, Any] = {}
    if flags["adapters"] is None:
        changed["adapters"] = [anchor(a) for a in config.adapters]
    if flags["base"] is None and config.base is not None:
        changed["base"] = anchor(config.base)
    return config.model_copy(update=changed)


def _list_methods(common: Common) -> None:
    from recmerge.merging import METHODS

    if common.as_json:
        emit_json({"methods": sorted(METHODS)})
        return
    for name in sorted(METHODS):
        summary = (METHODS[name].merge.__doc__ or "").strip().splitlines()[0]
        options = ", ".join(f"{k}={'null' if v is None else v}" for k, v in METHODS[name].options.items())
        emit(f"{name:<15} {summary}" + (f" Options (--set): {options}" if options else ""))


def _show(common: Common, report: dict[str, Any]) -> None:
    if common.as_json:
        emit_json({"check": True, **report})
        return
    s = report["summary"]
    options = "".join(f", {k} {v}" for k, v in report["options"].items())
    added = report["inference"]["added_parameters"]
    emit(f"method {report['method']}{options}, rank-out {report['rank_out']}: {s['modules']} modules, {added:,} added parameters")
    for adapter, weight, norm in zip(report["adapters"], report["weights"], s["task_vector_norms"], strict=True):
        ranks = ", ".join(map(str, adapter["ranks"]))
        emit(f"  {adapter['label']}: weight {weight:g}, rank {ranks}, {adapter['modules']} modules, norm of its change {norm:.4g}")
    cosine = "none" if s["mean_cosine"] is None else f"{s['mean_cosine']:.4f}"
    emit(f"  merged: norm {s['merged_norm']:.4g}, energy lost {s['energy_lost']:.2%}, mean cosine of the adapters {cosine}")
    for path in (output["path"] for output in report["outputs"]):
        emit(f"  {path}")
    emit("module: rank, norm, energy lost")
    for module, row in report["modules"].items():
        emit(f"  {module}: {row['rank']}, {row['merged_norm']:.4g}, {row['energy_lost']:.2%}")
