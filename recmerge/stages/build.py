"""Build one domain from raw files."""

from typing import Any

from recmerge.config.data import BuildConfig
from recmerge.data.building import ASKED, PUBLISHED, TIME, build_asked, build_clean, build_published
from recmerge.data.dataset import DOMAIN_FILES, Domain, candidates_sha256, examples, write_domain
from recmerge.data.official import RAW_DIR, raw_paths
from recmerge.data.sources import SOURCES, RawTables
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
_PATHS = ("interactions", "items", "reviews", "meta", "archive", "testdata")
_OF_EVERY_SOURCE = {"source", "columns", "profile", "max_bad", *_PATHS}


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
        ConfigError: The source is unknown, one of its files is not named, or a setting means nothing to it.
        ArtifactError: A file does not exist.
    """
    check_name(domain, "domain")
    inputs = tuple(_input(role, text, workspace, domain) for role, text in _files(domain, config, workspace).items())
    settings = {**config.resolved(), "domain": domain}
    if SOURCES[config.source].asks:
        _refuse_idle_settings(config)
        settings["profile"] = PUBLISHED
    spec = RunSpec(
        stage="build",
        name=check_name(name or domain),
        config=settings,
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
        raw.rejects.check(raw.n_lines, config.max_bad, run.path / REJECTS_FILE)
        run.reporter.warn(f"{len(raw.rejects.found)} of {raw.n_lines} lines put aside in {run.path / REJECTS_FILE}: {raw.rejects.by_reason()}")
    domain, facts = _build(domain_name, config, raw)
    facts["read"]["counts"] = dict(raw.counts)
    if any(raw.counts.values()):
        run.reporter.say(f"in the files: {', '.join(f'{n:,} {name}' for name, n in raw.counts.items() if n)}")
    write_domain(run.path, domain)
    asked = examples(domain, TEST)
    candidates = {"n": len(asked[0].candidates), "sha256": candidates_sha256(asked)}
    run.facts.update(kind="domain", domains=[domain_name], profile=domain.profile, **facts, candidates=candidates)
    counts = facts["counts"]
    run.reporter.say(f"{domain_name}: {counts['users']:,} users, {counts['items']:,} items, {counts['events']:,} events, {counts['rows']:,} training rows")
    run.reporter.say(f"{domain_name}: {_told(run.facts)}")


def _build(name: str, config: BuildConfig, raw: RawTables) -> tuple[Domain, dict[str, Any]]:
    if raw.asked is not None:
        return build_asked(name, raw)
    shared: dict[str, Any] = {"n_users": config.users, "n_candidates": config.n_candidates, "max_rows": config.max_rows, "seed": config.seed}
    if config.profile == PUBLISHED:
        return build_published(name, raw, **shared)
    shared |= {"k": config.k_core, "tie_break": config.tie_break, "max_title_chars": config.max_title_chars, "time_split": _time_split(config)}
    return build_clean(name, raw, **shared)


def _refuse_idle_settings(config: BuildConfig) -> None:
    """Refuse what would have no effect, for the source asks its own questions."""
    fields = BuildConfig.model_fields.items()
    idle = [f"{key} {getattr(config, key)}" for key, field in fields if key not in _OF_EVERY_SOURCE and getattr(config, key) != field.default]
    idle += ["profile clean"] if "profile" in config.model_fields_set and config.profile != PUBLISHED else []
    if idle:
        raise ConfigError(
            f"source '{config.source}' takes the questions as its file asks them, nothing is filtered, split or drawn: {', '.join(idle)} means nothing to it",
            fix="leave it out (`recmerge infer --users N` asks fewer users)",
        )


def _time_split(config: BuildConfig) -> TimeSplit | None:
    if config.split != TIME:
        return None
    cuts = None if config.valid_from is None or config.test_from is None else Cuts(config.valid_from, config.test_from)
    return TimeSplit(config.valid_share, config.test_share, cuts)


def _told(facts: dict[str, Any]) -> str:
    """Say how far training and test overlap in time."""
    split, future = facts["split"], facts["future"]
    if split["kind"] == ASKED:
        return f"one question of {facts['candidates']['n']} candidates per user, as the file asks it; nothing is drawn, and nothing is to train on"
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
        given |= {role: str(workspace.root / usual) for role, usual in SOURCES[config.source].usual.items()}
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
