"""Mix the training rows of built domains: one hybrid per source, or one union."""

from collections.abc import Sequence

from recmerge.config.data import MixConfig
from recmerge.data.dataset import read_domain, write_frame
from recmerge.data.mixing import DEFAULT_CAP, mix_rows, refuse_other_cuts
from recmerge.data.splitting import cuts_in
from recmerge.errors import DataError, UsageError, unknown_name
from recmerge.names import DOMAIN, ROWS_FILE
from recmerge.runs.directory import Run
from recmerge.runs.manifest import RunSpec, code_version
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.check import refuse_no_rows
from recmerge.stages.execute import Plan

_CODE = ("data/candidates.py", "data/dataset.py", "data/draws.py", "data/leakage.py", "data/mixing.py", "stages/mix.py")


def plan_mix(target: str, sources: Sequence[str], config: MixConfig, workspace: Workspace, name: str | None = None) -> list[Plan]:
    """Say what the mixes of a target with its sources will be.

    Args:
        target: A built domain.
        sources: Other built domains.
        config: The settings.
        workspace: Where runs live.
        name: The set's name; needed where it would not be WeaveRec's mix.

    Returns:
        One plan per source, or one for all with `union`. `a` with `b` and `b` with `a` are one plan.

    Raises:
        ArtifactError: A domain is not built.
        DataError: The domains are of different profiles, or not split at the same times, or one has no training rows.
        UsageError: A domain stands twice, or a name is missing or would name several sets.
    """
    found = [_domain(workspace, ref) for ref in (target, *dict.fromkeys(sources))]
    refuse_no_rows(found)
    names = [f.manifest.facts["domains"][0] for f in found]
    if len(set(names)) < len(names):
        raise UsageError(f"target and sources must be different domains, not {', '.join(names)}", fix="name each once")
    unknown = sorted(set(config.caps) - set(names))
    if unknown:
        raise UsageError(unknown_name("domain in caps", unknown[0], names), fix="name the domains that are mixed")
    plain = config.cap == DEFAULT_CAP and not config.caps
    if not plain and name is None:
        raise UsageError(f"a mix with other caps than {DEFAULT_CAP} rows of each domain is not the usual one", fix="give it a name of its own: --name NAME")
    groups = [found] if config.union else [[found[0], source] for source in found[1:]]
    if name is not None and len(groups) > 1:
        raise UsageError(f"--name {name} cannot name {len(groups)} sets", fix="mix one source at a time, or all by --union")
    return [_plan(group, config, workspace, name) for group in groups]


def run_mix(config: MixConfig, run: Run) -> None:
    """Write the set that `plan_mix` described.

    Args:
        config: The settings.
        run: Where to write.
    """
    roles = [i.role for i in run.spec.inputs]
    domains = [read_domain(run.input_path(role), role.removeprefix(f"{DOMAIN}:")) for role in roles]
    caps = {d.name: config.caps.get(d.name, config.cap) for d in domains}
    left_out: dict[str, int] = {}
    rows = mix_rows(domains, caps, config.seed, left_out)
    write_frame(run.path / ROWS_FILE, rows)
    counts = dict(sorted(rows[DOMAIN].value_counts().iter_rows()))
    run.facts.update(kind="mix", domains=sorted(caps), profile=domains[0].profile, rows=counts, counts={"rows": rows.height}, held_out_elsewhere=left_out)
    run.reporter.say(f"{run.spec.name}: {', '.join(f'{n:,} rows of {d}' for d, n in counts.items())}")
    for name, n in left_out.items():
        if n:
            run.reporter.say(f"{run.spec.name}: {n:,} rows of {name} left out, another domain holds the same purchase out")


def _domain(workspace: Workspace, ref: str) -> Found:
    return resolve(workspace, ref, ["build"], kind="domain", wanted="domain", hint=f"recmerge data build {ref}")


def _plan(group: list[Found], config: MixConfig, workspace: Workspace, name: str | None) -> Plan:
    ordered = sorted(group, key=lambda f: f.manifest.facts["domains"][0])
    profiles = {f.manifest.name: f.manifest.facts["profile"] for f in ordered}
    if len(set(profiles.values())) > 1:
        shown = ", ".join(f"{n} is {profile}" for n, profile in profiles.items())
        raise DataError(f"domains of different profiles cannot be mixed: {shown}", fix="build them with one --profile")
    refuse_other_cuts({f.manifest.name: cuts_in(f.manifest.facts.get("split", {})) for f in ordered})
    settings = config.resolved()
    del settings["union"]  # a union of two is their hybrid
    domains = {f.manifest.facts["domains"][0] for f in ordered}
    settings["caps"] = {d: n for d, n in config.caps.items() if d in domains}
    spec = RunSpec(
        stage="mix",
        name=check_name(name or "_".join(f.manifest.name for f in ordered)),
        config=settings,
        inputs=tuple(f.as_input(f"{DOMAIN}:{f.manifest.facts['domains'][0]}", workspace) for f in ordered),
        code=code_version(*_CODE),
        seeds={"mix": config.seed},
    )
    return Plan(spec, (ROWS_FILE,))
