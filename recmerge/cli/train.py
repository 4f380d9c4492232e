"""`recmerge train`."""

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from recmerge.cli.apps import app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import UsageError

if TYPE_CHECKING:
    from recmerge.config.train import TrainConfig
    from recmerge.stages.execute import Done
    from recmerge.stages.train import TrainJob


@command(app, "train")
def train(
    common: Common,
    name_of_data: Annotated[str | None, typer.Argument(metavar="NAME", help="A domain, hybrid or union set, e.g. sports or sports_beauty.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="The same as NAME.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Shipped name, `base pretrain` run, folder or Hugging Face id.")] = None,
    ranker: Annotated[str | None, typer.Option("--ranker", help="Train this ranker instead of a LoRA; --set ranker.KEY=VALUE for its settings.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of batch order and dropout.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda; a missing GPU is an error.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Let the base model's repository run code; needs a pinned revision.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run of this name.")] = False,
    resume_anyway: Annotated[bool, typer.Option("--resume-anyway", help="... even if data, settings or code changed.")] = False,
    list_systems: Annotated[bool, typer.Option("--list-systems", help="Print the systems that --system knows.")] = False,
) -> None:
    """Train a LoRA adapter (or another ranker) on a domain, hybrid or union set."""
    if list_systems:
        return emit_json({"systems": []}) if common.as_json else emit("none yet")
    data = name_of_data or domain
    if data is None or (name_of_data and domain and name_of_data != domain):
        raise UsageError("give one data set's NAME", fix="recmerge train sports")
    from recmerge.config.loader import shipped_names
    from recmerge.config.train import TrainConfig

    flags = {"base": base, "ranker.name": ranker, "seed": seed, "device": device, "trust_remote_code": trust_remote_code or None}
    config = common.load(TrainConfig, "train", flags, default=ranker if ranker in shipped_names("train") else "nano")
    if config.ranker is not None:
        return _train_ranker(common, config, data)
    from recmerge.stages.train import plan_train, with_resume

    job = plan_train(config, common.workspace, data, common.name, default_base=_config_base(common))
    if common.dry_run:
        return common.preview([job.plan])
    if resume or resume_anyway:
        job = with_resume(job, common.workspace, common.reporter, anyway=resume_anyway)
    else:
        _mention_unfinished(job, common)
    done = _run(job, common)
    if done is None:
        return None
    name = done.manifest.name
    common.finish(done, f"recmerge infer {_named_first(done, data)} --adapter {name}")
    return None


def _named_first(done: "Done", data: str) -> str:
    """Return the domain that the name of the data begins with."""
    return min(done.manifest.facts.get("domains", [data]), key=lambda domain: (not data.startswith(domain), domain))


def _config_base(common: Common) -> str:
    """The base that the config file itself names, before any flag."""
    from recmerge.config.loader import find_config
    from recmerge.config.train import TrainConfig
    from recmerge.config.yaml_file import read_yaml

    values, _ = read_yaml(find_config("train", common.config_ref or "nano"))
    return str(values.get("base", TrainConfig.model_fields["base"].default))


def _mention_unfinished(job: "TrainJob", common: Common) -> None:
    """Say that a stopped run of this name could be gone on with, before a new version is begun."""
    from recmerge.runs.directory import find_done, find_unfinished

    spec = job.plan.spec
    found = find_unfinished(common.workspace, "train", spec.name)
    if found is not None and (found[0] / "checkpoints").is_dir() and find_done(common.workspace, spec) is None:
        common.reporter.say(f"{found[0].name} of '{spec.name}' was begun and not completed; --resume would go on with it; this is a new version")


def _run(job: "TrainJob", common: Common) -> "Done | None":
    """Run alone, or as one of torchrun's processes: the first writes, the others only compute."""
    from recmerge.stages.execute import execute
    from recmerge.stages.train import run_train

    run = partial(execute, job.plan, workspace=common.workspace, reporter=common.reporter, again=common.again or job.resume is not None, resume=job.resume)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return run(partial(run_train, job))
    from recmerge.stages.distributed import run_together

    return run_together(job, run, common.workspace)


def _train_ranker(common: Common, config: "TrainConfig", data: str) -> None:
    from recmerge.stages.execute import execute
    from recmerge.stages.train_ranker import plan_train_ranker, run_train_ranker

    plan = plan_train_ranker(config, common.workspace, data, common.name)
    if common.dry_run:
        return common.preview([plan])
    done = execute(plan, partial(run_train_ranker, config), common.workspace, common.reporter, again=common.again)
    target, ranker = _named_first(done, data), plan.spec.config["ranker"]
    known_as = ranker if done.manifest.name == f"{target}-{ranker}" else done.manifest.name
    common.finish(done, f"recmerge infer {target} --ranker {known_as}")
    return None
