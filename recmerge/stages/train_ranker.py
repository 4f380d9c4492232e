"""`train --ranker`: fit another ranker than a LoRA on a domain."""

from recmerge.config.train import TrainConfig
from recmerge.data.dataset import read_domain
from recmerge.errors import ArtifactError
from recmerge.rankers import RANKER_DIR, Ranker, new_ranker, save_ranker
from recmerge.runs.directory import Run
from recmerge.runs.manifest import RunSpec, code_version
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan


def plan_train_ranker(config: TrainConfig, workspace: Workspace, ref: str, name: str | None) -> Plan:
    """Plan the fitting of a ranker.

    Args:
        config: Its `ranker` and `seed` are read.
        workspace: Where runs live.
        ref: The domain.
        name: The run's name; None: `<domain>-<ranker>`.

    Returns:
        The plan.
    """
    assert config.ranker is not None
    ranker = _untrained(config)  # refuses what cannot be trained before anything is written
    data = resolve(workspace, ref, ["build"], kind="domain", hint=f"recmerge data build {ref} --config CONFIG")
    name = check_name(name or f"{data.manifest.name}-{ranker.name}")
    code = code_version("rankers", "data/dataset.py", "data/training_set.py", "stages/train_ranker.py")
    settings = {"ranker": ranker.name, "settings": ranker.settings.model_dump(mode="json"), "seed": config.seed}
    spec = RunSpec("train", name, settings, (data.as_input("data", workspace),), code, {"seed": config.seed})
    return Plan(spec, (f"{RANKER_DIR}/",))


def find_trained_ranker(workspace: Workspace, ranker: str, data: Found) -> Found | None:
    """Find the newest training of a ranker under its default name.

    Args:
        workspace: Where runs live.
        ranker: Its name.
        data: The built domain that it is to be asked about.

    Returns:
        The run, None if it was never trained.

    Raises:
        ArtifactError: It was trained on other data of that name, which may hold the very purchases that are asked about.
    """
    try:
        found = resolve(workspace, f"{data.manifest.name}-{ranker}", ["train"], kind="ranker", wanted="ranker")
    except ArtifactError:
        return None
    if data.manifest.content_sha256 not in {i["content_sha256"] for i in found.manifest.inputs}:
        raise ArtifactError(
            f"ranker '{found.manifest.name}' {found.manifest.version} was trained on other data than {data.label}",
            fix=f"train it again with `recmerge train {data.manifest.name} --ranker {ranker}`",
        )
    return found


def run_train_ranker(config: TrainConfig, run: Run) -> None:
    """Fit the ranker on the domain's training events and save it.

    Args:
        config: Its `ranker` and `seed` are read.
        run: Where to write.
    """
    domain = read_domain(run.input_path("data"))
    ranker = _untrained(config)
    ranker.fit(domain)
    save_ranker(ranker, run.path)
    run.facts.update(kind="ranker", ranker=ranker.name, domains=[domain.name], **ranker.facts)


def _untrained(config: TrainConfig) -> Ranker:
    assert config.ranker is not None
    return new_ranker(config.ranker.name, seed=config.seed, settings=config.ranker.settings)
