"""Every shipped YAML loads as its command would load it, and the command takes it by its name."""

from pathlib import Path

import pytest

from recmerge.ablation.plan import plan_graph
from recmerge.config.ablate import AblateConfig
from recmerge.config.base import BaseConfig
from recmerge.config.data import BuildConfig, MixConfig
from recmerge.config.evaluate import EvalConfig
from recmerge.config.infer import InferConfig
from recmerge.config.loader import Settings, load, shipped_dir, shipped_names
from recmerge.config.merge import MergeConfig
from recmerge.config.train import TrainConfig

SCHEMAS: dict[str, type[Settings]] = {
    "ablate": AblateConfig,
    "base": BaseConfig,
    "data": BuildConfig,
    "eval": EvalConfig,
    "infer": InferConfig,
    "merge": MergeConfig,
    "mix": MixConfig,
    "train": TrainConfig,
}
NEEDED = {"eval": {"runs": ["a-run"]}}  # flags without which a command says nothing
FILES = sorted(shipped_dir().rglob("*.y*ml"))


def test_there_are_configs_of_every_command():
    assert len(FILES) >= 15
    assert {p.parent.name for p in FILES} == set(SCHEMAS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_shipped_config_loads(path: Path):
    assert path.suffix == ".yaml"
    command = path.parent.name
    assert path.parent.parent == shipped_dir()  # one folder per command, no deeper
    assert path.stem in shipped_names(command)
    flags = NEEDED.get(command, {})
    by_path = load(SCHEMAS[command], command, str(path), flags)
    assert load(SCHEMAS[command], command, path.stem, flags) == by_path
    assert load(SCHEMAS[command], command, None, by_path.model_dump(exclude_unset=True)) == by_path  # nothing hangs on where the file lies


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_shipped_config_says_what_it_is_for(path: Path):
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", shipped_names("ablate"))
def test_a_shipped_ablation_has_a_graph(name: str):
    graph = plan_graph(load(AblateConfig, "ablate", name, {}), shipped_dir() / "ablate")
    assert graph.counts()["eval"] >= 1


def test_the_full_demo_goes_on_where_the_demo_ended():
    commands = {
        name: {" ".join(words) for words, cell in zip(graph.commands(), graph, strict=True) if cell.kind != "eval"}
        for name in ("demo", "demo_full")
        for graph in [plan_graph(load(AblateConfig, "ablate", name, {}), Path())]
    }
    assert commands["demo"] < commands["demo_full"]
