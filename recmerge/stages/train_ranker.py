"""`train --ranker`: fit another ranker than a LoRA on a domain."""

from recmerge.config.train import TrainConfig
from recmerge.data.dataset import read_domain
from recmerge.rankers import new_ranker, save_ranker
from recmerge.runs.directory import Run
from recmerge.runs.manifest import RunSpec, code_version
from recmerge.runs.resolve import resolve
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
    new_ranker(config.ranker, seed=config.seed)  # refuses an unknown name before anything is written
    data = resolve(workspace, ref, ["build"], kind="domain", hint=f"recmerge data build {ref} --config CONFIG")
    name = check_name(name or f"{data.manifest.name}-{config.ranker}")
    code = code_version("rankers", "data/dataset.py", "data/training_set.py", "stages/train_ranker.py")
    settings = {"ranker": config.ranker, "seed": config.seed}
    spec = RunSpec("train", name, settings, (data.as_input("data", workspace),), code, {"seed": config.seed})
    return Plan(spec, ("ranker/",))


def run_train_ranker(config: TrainConfig, run: Run) -> None:
    """Fit the ranker on the domain's training events and save it.

    Args:
        config: Its `ranker` and `seed` are read.
        run: Where to write.
    """
    assert config.ranker is not None
    domain = read_domain(run.input_path("data"))
    ranker = new_ranker(config.ranker, seed=config.seed)
    ranker.fit(domain)
    save_ranker(ranker, run.path)
    run.facts.update(kind="ranker", ranker=config.ranker, domains=[domain.name])
