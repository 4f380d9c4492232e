"""Build one domain from raw files."""

from typing import Any

from recmerge.config.data import BuildConfig
from recmerge.data.building import PUBLISHED, TIME, build_clean, build_published
from recmerge.data.dataset import DOMAIN_FILES, candidates_sha256, examples, write_domain
from recmerge.data.official import RAW_DIR, raw_paths
from recmerge.data.sources import SOURCES
from recmerge.data.splitting import Cuts, TimeSplit, moment
from recmerge.errors import ArtifactError, ConfigError, unknown_name
from recmerge.names import PACKAGE_PREFIX, TEST, expand_path
from recmerge.runs.directory import Run
from recmerge.runs.manifest import Input, RunSpec, code_version, input_from_file
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan

REJECTS_FILE = "rejects.jsonl"
_CODE = (
    "data/building.py",
    "data/candidates.py",
    "data/dataset.py",
    "data/draws.py",
    "data/filtering.py",
    "data/leakage.py",
    "data/sources",
    "data/splitting.py",
    "data/titles.py",
    "stages/build.py",
)
_PATHS = ("interactions", "items", "reviews", "meta", "archive")


def plan_build(domain: str, config: BuildConfig, workspace: Workspace, name: str | None = None) -> Plan:
    """Say what a build will be.

    Args:
        domain: The domain's name; replaces `{domain}` in the config's paths.
        config: Its settings.
        workspace: Where the run will live.
        name: The run's name; None: the domain's.

    Returns:
        The plan.

    Raises:
        UsageError: The domain or name could not be a folder's.
        ConfigError: The source is unknown, or one of its files is not named.
        ArtifactError: A file does not exist.
    """
    check_name(domain, "domain")
    inputs = tuple(_input(role, text, workspace, domain) for role, text in _files(domain, config, workspace).items())
    spec = RunSpec(
        stage="build",
        name=check_name(name or domain),
        config={**config.resolved(), "domain": domain},
        inputs=inputs,
        code=code_version(*_CODE),
        seeds={"data": config.seed},
        ignore=(*_PATHS, "max_bad"),  # files count by what they hold, not by where they lie
    )
    return Plan(spec, DOMAIN_FILES)


def run_build(config: BuildConfig, run: Run) -> None:
    """Build the domain that `plan_build` described.

    Args:
        config: The settings.
        run: Where to write.

    Raises:
        DataError: The files cannot be used; the line says why.
    """
    domain_name = run.spec.config["domain"]
    files = {role: expand_path(text) for role, text in _files(domain_name, config, run.workspace).items()}
    run.reporter.say(f"reading {', '.join(p.name for p in files.values())}")
    raw = SOURCES[config.source].read(files, config.columns.model_dump())
    if raw.rejects.found:
        raw.rejects.write(run.path / REJECTS_FILE)
        raw.rejects.check(raw.n_lines, config.max_bad)
        run.reporter.warn(f"{len(raw.rejects.found)} of {raw.n_lines} lines put aside in {run.path / REJECTS_FILE}: {raw.rejects.by_reason()}")
    shared: dict[str, Any] = {"n_users": config.users, "n_candidates": config.n_candidates, "max_rows": config.max_rows, "seed": config.seed}
    if config.profile == PUBLISHED:
        domain, facts = build_published(domain_name, raw, **shared)
    else:
        shared |= {"k": config.k_core, "tie_break": config.tie_break, "max_title_chars": config.max_title_chars, "time_split": _time_split(config)}
        domain, facts = build_clean(domain_name, raw, **shared)
    facts["read"]["counts"] = dict(raw.counts)
    if any(raw.counts.values()):
        run.reporter.say(f"in the files: {', '.join(f'{n:,} {name}' for name, n in raw.counts.items() if n)}")
    write_domain(run.path, domain)
    digest = candidates_sha256(examples(domain, TEST))
    run.facts.update(kind="domain", domains=[domain_name], profile=config.profile, **facts, candidates={"n": config.n_candidates, "sha256": digest})
    counts = facts["counts"]
    run.reporter.say(f"{domain_name}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events, {counts['rows']:,} training rows")
    run.reporter.say(f"{domain_name}: {_told(facts['split'], facts['future'])}")


def _time_split(config: BuildConfig) -> TimeSplit | None:
    if config.split != TIME:
        return None
    cuts = None if config.valid_from is None or config.test_from is None else Cuts(config.valid_from, config.test_from)
    return TimeSplit(config.valid_share, config.test_share, cuts)


def _told(split: dict[str, Any], future: dict[str, Any]) -> str:
    """Say how far training and test overlap in time."""
    if split["kind"] == TIME:
        events = split["events"]
        return (
            f"split by time: training before {moment(split['valid_from'])}, test from {moment(split['test_from'])}; {events['train']:,} events to train on, "
            f"{events['valid']:,} users validate, {events['test']:,} test, {events.get('unasked', 0):,} other events held out"
        )
    n = future["test_users"]
    return (
        f"leave-one-out sees the future: {future['test_users_training_after_tests']:,} of {n:,} test users have training events later than another user's "
        f"test, {future['test_users_tested_before_training']:,} are tested before a training event of another user, and "
        f"{future['train_share_after_median_test']:.1%} of the training events are later than the median test (`--split time` prevents it)"
    )


def _files(domain: str, config: BuildConfig, workspace: Workspace) -> dict[str, str]:
    """Return the source's files by role, `{domain}` filled in."""
    if config.source not in SOURCES:
        raise ConfigError(unknown_name("source", config.source, SOURCES), fix="correct `source`")
    given = {role: getattr(config, role) for role in SOURCES[config.source].files}
    if not any(given.values()):
        given = {role: str(path) for role, path in raw_paths(config.source, domain, workspace.root).items()} or given
    missing = [role for role, text in given.items() if not text]
    if missing:
        flags = " ".join(f"--{role} FILE" if role in {"interactions", "items"} else f"--set {role}=FILE" for role in missing)
        raise ConfigError(f"source '{config.source}' needs {' and '.join(missing)}", fix=f"add it to the YAML or give {flags}")
    return {role: text.replace("{domain}", domain) for role, text in given.items()}


def _input(role: str, text: str, workspace: Workspace, domain: str) -> Input:
    path = expand_path(text)
    shown = text if text.startswith(PACKAGE_PREFIX) else workspace.relative(path)
    if text.startswith(PACKAGE_PREFIX) and not path.is_file():
        known = sorted(p.name for p in path.parent.parent.glob("*") if p.is_dir())
        raise ArtifactError(unknown_name("bundled domain", domain, known), fix="name one of these")
    fetched = path.parent.parent == workspace.root / RAW_DIR
    if fetched and not path.is_file():
        raise ArtifactError(f"{role} file {path} does not exist", fix=f"recmerge data fetch {path.parent.name} --domains {domain}")
    return input_from_file(role, path, shown)
