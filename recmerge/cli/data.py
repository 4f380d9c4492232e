"""`recmerge data`: fetch, build, mix, check, describe and export data sets."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmerge.cli.apps import data_app
from recmerge.cli.console import emit_json
from recmerge.cli.options import Common, command, split_list
from recmerge.errors import UsageError

if TYPE_CHECKING:
    from recmerge.config.data import BuildConfig


@command(data_app, "build")
def build(
    common: Common,
    domains: Annotated[list[str], typer.Argument(metavar="DOMAIN...", help="Domains to build; each replaces {domain} in the config's paths.")],
    interactions: Annotated[str | None, typer.Option("--interactions", help="Table of user_id, item_id, timestamp; may hold {domain}.")] = None,
    items: Annotated[str | None, typer.Option("--items", help="Table of item_id and title; may hold {domain}.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="clean, or published: what the published WeaveRec code does.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="leave_one_out, or time: hold out what lies after two points in time.")] = None,
    users: Annotated[int | None, typer.Option("--users", help="A seeded sample of this many users.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of every draw; default 42.")] = None,
) -> None:
    """Filter, order and split domains and fix their candidates.

    Example: recmerge data build sports beauty --config sample
    """
    from recmerge.stages.build import plan_build, run_build
    from recmerge.stages.execute import execute

    if common.name and len(domains) > 1:
        raise UsageError(f"--name {common.name} cannot name {len(domains)} domains", fix="build them one by one")
    flags = {"interactions": interactions, "items": items, "profile": profile, "split": split, "users": users, "seed": seed}
    configs = [_build_config(common, domain, flags) for domain in domains]
    plans = [plan_build(domain, config, common.workspace, common.name) for domain, config in zip(domains, configs, strict=True)]
    contents = {tuple(i.content_sha256 for i in plan.spec.inputs) for plan in plans}
    if len(contents) < len(set(domains)):
        raise UsageError(f"{' and '.join(domains)} would be built from the same files", fix="put {domain} into the paths, or build them one by one")
    if common.dry_run:
        return common.preview(plans)
    done = [
        execute(plan, partial(run_build, config), common.workspace, common.reporter, again=common.again) for plan, config in zip(plans, configs, strict=True)
    ]
    names = [d.manifest.name for d in done]
    mixable = len(names) > 1 and all(d.manifest.facts["counts"]["rows"] for d in done)
    common.finish(done, next_command=f"recmerge data mix {' '.join(names)}" if mixable else _use(names[0], done[0].manifest.facts["counts"]["rows"]))


def _use(name: str, n_rows: int) -> str:
    """Name the command that a data set is for; one without training rows is there to be asked."""
    return f"recmerge train {name}" if n_rows else f"recmerge infer {name} --adapter RUN_OR_FOLDER"


def _build_config(common: Common, domain: str, flags: dict[str, Any]) -> "BuildConfig":
    """Load a domain's settings; without --config its own YAML is looked for."""
    from recmerge.config.data import BuildConfig
    from recmerge.runs.workspace import check_name

    check_name(domain, "domain")
    if common.config_ref:
        return common.load(BuildConfig, "data", flags)
    own = [p for folder in (Path.cwd(), common.workspace.root) if (p := folder / f"{domain}.yaml").is_file()]
    if not own and not (flags["interactions"] or flags["items"] or common.overrides):
        raise UsageError(
            f"no settings for domain '{domain}': neither --config nor a file {domain}.yaml here",
            fix=f"`recmerge data build {domain} --interactions FILE --items FILE`, or the bundled `recmerge data build sports --config sample`",
        )
    return common.load(BuildConfig, "data", flags, default=str(own[0]) if own else None)


@command(data_app, "mix")
def mix(
    common: Common,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A built domain.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Other built domains.")],
    union: Annotated[bool | None, typer.Option("--union", help="All domains in one set.")] = None,
    cap: Annotated[int | None, typer.Option("--cap", help="Rows of each domain at most; default 40,000.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the shuffle; default 42.")] = None,
) -> None:
    """Mix a target's training rows with each source's: one hybrid set per source.

    Example: recmerge data mix sports beauty toys
    """
    from recmerge.config.data import MixConfig
    from recmerge.stages.execute import execute
    from recmerge.stages.mix import plan_mix, run_mix

    config = common.load(MixConfig, "mix", {"union": union, "cap": cap, "seed": seed})
    plans = plan_mix(target, sources, config, common.workspace, common.name)
    if common.dry_run:
        return common.preview(plans)
    done = [execute(plan, partial(run_mix, config), common.workspace, common.reporter, again=common.again) for plan in plans]
    common.finish(done, next_command=f"recmerge train {done[0].manifest.name}")


@command(data_app, "check", run=False, config=False)
def check(common: Common, name: Annotated[str, typer.Argument(metavar="NAME", help="A built domain or mixed set.")]) -> None:
    """Look for leaks and damage; exit 3 with the first five faults where there are any.

    Example: recmerge data check beauty_sports
    """
    from recmerge.stages.check import run_check

    document = run_check(name, common.workspace, common.reporter)
    if common.as_json:
        return emit_json(document)
    common.reporter.say(f"ok: {document['rows']:,} training rows of {', '.join(document['domains'])}, no fault found")
    common.reporter.say(f"next: {_use(name, document['rows'])}")


@command(data_app, "stats", run=False, config=False)
def stats(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A built domain or mixed set.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file to write; default: data/stats/NAME-VERSION.html in the workspace.")] = None,
    base: Annotated[str, typer.Option("--base", help="Base model whose tokenizer counts the tokens of titles; none: do not count.")] = "nano",
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --out names.")] = False,
) -> None:
    """Counts and percentiles of lengths, popularity, titles and ties in time, and a page that draws them.

    Example: recmerge data stats sports
    """
    from recmerge.evaluation.report.data_set import stats_tables
    from recmerge.stages.stats import run_stats

    document = run_stats(name, common.workspace, out, base=None if base == "none" else base, force=force)
    if common.as_json:
        return emit_json(document)
    for table in stats_tables(document):
        common.reporter.table(table.title, table.columns, table.rows)
    common.reporter.say(f"wrote {document['outputs'][0]['path']}")
    common.reporter.say(f"next: {_use(name, document['rows'])}")


@command(data_app, "export", run=False, config=False)
def export(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A built domain or mixed set.")],
    form: Annotated[str, typer.Option("--format", help="llamafactory, recbole or trl.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: data/exports/NAME-VERSION-FORMAT in the workspace.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Write a data set for another tool.

    Example: recmerge data export beauty_sports --format trl --out trl/
    """
    from recmerge.stages.export import run_export

    document = run_export(name, form, out, common.workspace, common.reporter, force=force)
    if common.as_json:
        return emit_json(document)
    for item in document["outputs"]:
        common.reporter.say(f"wrote {item['path']} ({item['bytes']:,} bytes)")
    common.reporter.say(f"next: recmerge data stats {name}")


@command(data_app, "fetch", run=False, config=False)
def fetch(
    common: Common,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="amazon2014, amazon2018, amazon2023 or movielens.")],
    domains: Annotated[str | None, typer.Option("--domains", help="Comma-separated; default: the usual ones.")] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", help="URL, folder or file to take it from instead of the official place.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask for the sizes; write nothing.")] = False,
) -> None:
    """Download official raw files: sizes first, resumed where they broke off, checked.

    Example: recmerge data fetch amazon2014 --domains sports,beauty
    """
    from recmerge.stages.fetch import run_fetch

    document = run_fetch(source, split_list(domains), mirror, common.workspace, common.reporter, dry_run=dry_run)
    if common.as_json:
        return emit_json(document)
    for item in document["outputs"]:
        common.reporter.say(f"have {item['path']} ({item['bytes']:,} bytes, sha256 {item['sha256'][:12]})")
    common.reporter.say(f"next: recmerge data build {' '.join(document['domains'])} --config {source}")
