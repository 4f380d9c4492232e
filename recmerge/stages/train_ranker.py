"""`train --ranker`: fit another ranker than a LoRA on a domain, or on several together."""

from dataclasses import dataclass
from typing import Any

from recmerge.config.train import TrainConfig
from recmerge.data.training_set import read_training_set
from recmerge.errors import ArtifactError, UsageError, unknown_name
from recmerge.names import DOMAIN
from recmerge.rankers import RANKER_DIR, RANKERS, Ranker, new_ranker, ranker_sources, save_ranker
from recmerge.runs.directory import Run
from recmerge.runs.manifest import Input, RunSpec, code_version, read_manifest
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan
from recmerge.stages.train import find_training_data

_DEVICE = "device"


def plan_train_ranker(config: TrainConfig, workspace: Workspace, ref: str, name: str | None) -> Plan:
    """Plan the fitting of a ranker.

    Args:
        config: Its `ranker`, `seed` and `device` are read.
        workspace: Where runs live.
        ref: The domain, or a set of several in either spelling.
        name: The run's name; None: `<data>-<ranker>`.

    Returns:
        The plan.
    """
    assert config.ranker is not None
    ranker = _untrained(config)  # refuses what cannot be trained before anything is written
    data = find_training_data(workspace, ref)
    name = check_name(name or f"{data.manifest.name}-{ranker.name}")
    code = code_version(*ranker_sources(ranker.name), "data/dataset.py", "data/training_set.py", "stages/train_ranker.py")
    settings = {"ranker": ranker.name, "settings": ranker.settings.model_dump(mode="json", exclude={_DEVICE}), "seed": config.seed}
    spec = RunSpec("train", name, settings, (data.as_input("data", workspace), *_domains_of(data)), code, {"seed": config.seed})
    return Plan(spec, (f"{RANKER_DIR}/",))


def _domains_of(data: Found) -> tuple[Input, ...]:
    """Return the domains that a mixed set was made from, as inputs: whoever asks the ranker about one of them must hold the same data."""
    inputs = data.manifest.inputs if data.manifest.stage == "mix" else ()
    return tuple(Input(**item) for item in inputs if item["role"].partition(":")[0] == DOMAIN)


@dataclass(frozen=True)
class Asked:
    """A ranker that is to rank.

    Args:
        name: Of `RANKERS`.
        run: Its training; None: it is fitted on the spot.
        label: What its rankings are called by.
    """

    name: str
    run: Found | None
    label: str


def find_ranker(workspace: Workspace, ref: str, data: Found) -> Asked:
    """Find what `infer --ranker` means: a ranker's name, trained under its default name or quick to fit, or the run of a trained one.

    Args:
        workspace: Where runs live.
        ref: A name of `RANKERS`, or of a run of `train --ranker`.
        data: The built domain that it is to be asked about.

    Returns:
        The ranker.

    Raises:
        ArtifactError: It was trained on other data of that name, which may hold the very purchases that are asked about; or it is not
            trained, and too slow to be fitted by the way.
        UsageError: There is no such ranker and no such run.
    """
    name = data.manifest.name
    if ref not in RANKERS:
        try:
            found = resolve(workspace, ref, ["train"], kind="ranker", wanted="ranker")
        except ArtifactError:
            raise UsageError(unknown_name("ranker", ref, RANKERS), fix="`recmerge infer --list-rankers` lists them; or name a trained one's run") from None
        return Asked(str(found.manifest.facts["ranker"]), _taught_on(found, data), found.manifest.name.removeprefix(f"{name}-"))
    try:
        found = resolve(workspace, f"{name}-{ref}", ["train"], kind="ranker", wanted="ranker")
    except ArtifactError:
        if RANKERS[ref].is_slow:
            raise ArtifactError(f"ranker '{ref}' is not trained on '{name}'", fix=f"recmerge train {name} --ranker {ref}") from None
        return Asked(ref, None, ref)
    return Asked(ref, _taught_on(found, data), ref)


def _taught_on(found: Found, data: Found) -> Found:
    if data.manifest.content_sha256 not in {i["content_sha256"] for i in found.manifest.inputs}:
        name, ranker = data.manifest.name, found.manifest.facts["ranker"]
        raise ArtifactError(
            f"ranker '{found.manifest.name}' {found.manifest.version} was trained on other data than {data.label}",
            fix=f"train it again with `recmerge train {name} --ranker {ranker}`",
        )
    return found


def run_train_ranker(config: TrainConfig, run: Run) -> None:
    """Fit the ranker on the training events of the domain, or of several, and save it.

    Args:
        config: Its `ranker`, `seed` and `device` are read.
        run: Where to write.
    """
    path = run.input_path("data")
    manifest = read_manifest(path)
    assert manifest is not None  # an input is a complete run
    training = read_training_set(path, manifest, run.workspace)
    ranker = _untrained(config)
    ranker.say = run.reporter.say
    ranker.fit(training)
    save_ranker(ranker, run.path)
    run.facts.update(kind="ranker", ranker=ranker.name, domains=sorted(training.domains), **ranker.facts)


def new_on_device(name: str, device: str, *, seed: int, settings: dict[str, Any] | None = None) -> Ranker:
    """Return an untrained ranker that computes where the command was told to, if it computes with torch."""
    given = dict(settings or {})
    if name in RANKERS and _DEVICE in RANKERS[name].settings_class.model_fields:
        given.setdefault(_DEVICE, device)
    return new_ranker(name, seed=seed, settings=given)


def _untrained(config: TrainConfig) -> Ranker:
    assert config.ranker is not None
    return new_on_device(config.ranker.name, config.device, seed=config.seed, settings=config.ranker.settings)
