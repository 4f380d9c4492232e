"""`recmerge infer`."""

from functools import partial
from typing import Annotated

import typer

from recmerge.cli.apps import app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import UsageError


@command(app, "infer")
def infer(
    common: Common,
    domain: Annotated[str | None, typer.Argument(metavar="NAME", help="The domain whose users are ranked for.")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", help="A train or merge run, an adapter's folder, or none for the base alone.")] = None,
    ranker: Annotated[str | None, typer.Option("--ranker", help="Another ranker, see --list-rankers.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="The base model; default: the adapter's own.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="score (likelihood) or generate (as published).")] = None,
    split: Annotated[str | None, typer.Option("--split", help="test or valid.")] = None,
    candidates: Annotated[str | None, typer.Option("--candidates", help="stored, popular or similar (harder negatives), or all (the whole catalogue).")] = None,
    users: Annotated[int | None, typer.Option("--users", help="Only the first N users of a seeded order.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Users scored together.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="transformers or vllm.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda; a missing GPU is an error.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Let the base model's repository run code.")] = False,
    list_rankers: Annotated[bool, typer.Option("--list-rankers", help="Print the rankers that --ranker knows.")] = False,
) -> None:
    """Rank every test user's stored candidates."""
    if list_rankers:
        return _list_rankers(common)
    if domain is None:
        raise UsageError("give the domain whose users are ranked for", fix="recmerge infer sports --adapter sports")
    from recmerge.config.infer import InferConfig
    from recmerge.stages.execute import execute
    from recmerge.stages.infer import plan_infer, run_infer

    flags = {
        "adapter": adapter,
        "ranker": ranker,
        "base": base,
        "mode": mode,
        "split": split,
        "candidates": candidates,
        "users": users,
        "batch_size": batch_size,
        "backend": backend,
        "device": device,
        "trust_remote_code": trust_remote_code or None,
    }
    config = common.load(InferConfig, "infer", flags)
    plan = plan_infer(config, common.workspace, domain, common.name)
    if common.dry_run:
        return common.preview([plan])
    done = execute(plan, partial(run_infer, config), common.workspace, common.reporter, again=common.again)
    common.finish(done, f"recmerge eval {done.manifest.name}")
    return None


def _list_rankers(common: Common) -> None:
    from recmerge.rankers import RANKERS, CatalogueRanker, missing_modules

    names = sorted(RANKERS)
    missing = {name: modules for name in names if (modules := missing_modules(name))}
    if common.as_json:
        whole = [name for name in names if issubclass(RANKERS[name], CatalogueRanker)]
        return emit_json({"rankers": names, "whole_catalogue": whole, "missing": missing})
    for name, modules in missing.items():
        common.reporter.say(f"{name} needs {' and '.join(modules)}: pip install 'recmerge[floors]'")
    return emit("\n".join(names))
