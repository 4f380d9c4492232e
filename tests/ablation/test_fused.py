"""A fused system of an ablation: its cells, its rows, and a whole run on a small domain."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recmerge.ablation.graph import FUSED_LABEL, Cell, Graph, Outcome, Use
from recmerge.ablation.plan import plan_graph
from recmerge.ablation.pooled import pool_seeds
from recmerge.ablation.table import CHANCE, build_rows, fused_labels
from recmerge.config.ablate import AblateConfig
from recmerge.config.loader import load
from recmerge.errors import ConfigError

FLOORS = {"tf-idf": {"ranker": "tfidf"}, "bought together": {"ranker": "cooccurrence"}}


def plan(systems: dict[str, Any], **more: Any) -> Graph:
    settings = {"name": "x", "data": {"domains": ["sports", "beauty"]}, "targets": ["sports"], "systems": systems, **more}
    return plan_graph(AblateConfig.model_validate(settings), Path("/configs"))


def lines(graph: Graph, kind: str) -> list[str]:
    return [" ".join(words) for words, cell in zip(graph.commands(), graph, strict=True) if cell.kind == kind]


def test_a_fused_system_adds_its_parts_rankings_of_validation_events():
    graph = plan({**FLOORS, "popularity": {"ranker": "popularity"}, "all": {"fuse": ["tf-idf", "bought together"]}}, infer={"set": {"users": 500}})
    assert graph.counts() == {"build": 1, "mix": 0, "train": 0, "merge": 0, "infer": 5, "eval": 1}
    assert lines(graph, "infer") == [
        "infer sports --ranker tfidf --name sports-tf-idf --set users=500",
        "infer sports --ranker cooccurrence --name sports-bought-together --set users=500",
        "infer sports --ranker popularity --name sports-popularity --set users=500",
        "infer sports --ranker tfidf --name sports-tf-idf-valid --split valid --set users=500",
        "infer sports --ranker cooccurrence --name sports-bought-together-valid --split valid --set users=500",
    ]
    fuse = "--fuse sports-tf-idf,sports-bought-together --fit-on sports-tf-idf-valid,sports-bought-together-valid"
    assert lines(graph, "eval") == [f"eval sports-tf-idf sports-bought-together sports-popularity {fuse} --name x-sports"]


def test_its_model_and_the_number_of_validation_users_may_be_set():
    fused = {"fuse": {"of": ["tf-idf", "own"], "model": "logit", "fit_users": 2000}}
    own = {"adapter": "{target}", "set": {"users": 70, "batch_size": 2}}
    settings = {"infer": {"set": {"users": 500}}, "eval": {"set": {"fusion_model": "network", "seed": 1}}}
    graph = plan({**FLOORS, "own": own, "all": fused}, **settings)
    asked = {cell.name: line.partition(cell.name + " ")[2] for cell, line in zip((c for c in graph if c.kind == "infer"), lines(graph, "infer"), strict=True)}
    assert asked["sports-own"] == "--set users=70 --set batch_size=2"
    assert asked["sports-own-valid"] == "--split valid --set users=2000 --set batch_size=2"
    assert asked["sports-tf-idf-valid"] == "--split valid --set users=2000"
    assert "sports-bought-together-valid" not in asked
    assert lines(graph, "eval")[0].endswith("--name x-sports --set fusion_model=logit --set seed=1")
    assert graph.counts()["train"] == 1  # both rankings are by one adapter


def test_a_grid_has_validation_rankings_of_every_point():
    systems = {"own": {"adapter": "{target}"}, **FLOORS, "all": {"fuse": ["own", "tf-idf"]}}
    graph = plan(systems, matrix={"train.lora.rank": [8, 16]})
    assert [c.name for c in graph if c.name.endswith("-valid")] == ["sports-own-rank8-valid", "sports-tf-idf-valid", "sports-own-rank16-valid"]
    assert "--fuse sports-own-rank16,sports-tf-idf --fit-on sports-own-rank16-valid,sports-tf-idf-valid" in lines(graph, "eval")[1]


def test_parts_that_make_no_sense_for_a_target_are_left_out():
    systems = {"with sports": {"adapter": "{target}_sports"}, **FLOORS, "all": {"fuse": ["with sports", "tf-idf"]}}
    graph = plan(systems, targets=["sports", "beauty"])
    sports, beauty = (c for c in graph if c.kind == "eval")
    assert not sports.extras
    assert FUSED_LABEL not in sports.labels
    assert beauty.extras == ("infer beauty-with-sports-valid", "infer beauty-tf-idf-valid")


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ({"all": {"fuse": ["tf-idf", "bougt together"]}}, "systems.all.fuse: unknown system 'bougt together', did you mean 'bought together'?"),
        ({"all": {"fuse": ["tf-idf", "all"]}}, "systems.all: fuses itself"),
        (
            {"all": {"fuse": ["tf-idf", "some"]}, "some": {"fuse": ["tf-idf", "bought together"]}},
            "one system of an ablation may be fused, not both",
        ),
        ({"all": {"fuse": ["tf-idf"]}}, "at least 2 items"),
        ({"all": {"fuse": ["tf-idf", "tf-idf"]}}, "names a system twice"),
        ({"all": {"fuse": {"of": ["tf-idf", "bought together"], "model": "forest"}}}, "'auto', 'logit' or 'network'"),
        ({"all": {"fuse": {"of": ["tf-idf", "bought together"], "users": 5}}}, "unknown key in 'systems.all.fuse' 'users'"),
        ({"all": {"fuse": ["tf-idf", "bought together"], "ranker": "random"}}, "not ranker and fuse"),
        ({"all": {"fuse": ["tf-idf", "bought together"], "set": {"users": 5}}}, "set goes with a system that is ranked by itself"),
        ({"all": {"fuse": ["tf-idf", "bought together"], "train": {"steps": 5}}}, "train goes with an adapter"),
        ({"all": {"fuse": ["tf-idf", "bought together"]}, "TF-IDF valid": {"ranker": "random"}}, "whose ranking of validation events is called so"),
    ],
)
def test_fusions_that_mean_nothing_are_refused_in_one_line(systems: dict[str, Any], said: str):
    settings = {"name": "x", "data": {"domains": ["sports"]}, "targets": ["sports"], "systems": {**FLOORS, **systems}}
    with pytest.raises(ConfigError) as error:
        load(AblateConfig, "ablate", None, settings)
    assert said in error.value.line()
    assert "\n" not in error.value.line()


def test_a_fused_system_is_no_baseline():
    settings = {"name": "x", "data": {"domains": ["sports"]}, "targets": ["sports"], "baseline": "all"}
    with pytest.raises(ConfigError, match="baseline 'all' is fused; choose a system that is ranked by itself: tf-idf, bought together"):
        load(AblateConfig, "ablate", None, {**settings, "systems": {**FLOORS, "all": {"fuse": list(FLOORS)}}})


def test_a_fusion_is_asked_for_as_a_whole_or_not_at_all():
    graph = plan({**FLOORS, "all": {"fuse": list(FLOORS)}})
    evaluation = next(c for c in graph if c.kind == "eval")
    refs = {key: cell.name for key, cell in graph.cells.items()}
    assert "--fuse" in evaluation.words(refs)
    for missing in evaluation.extras:
        words = evaluation.words({k: v for k, v in refs.items() if k != missing})
        assert words == ["eval", "sports-tf-idf", "sports-bought-together", "--name", "x-sports"]


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Graph, dict[str, Outcome]]:
    """A floor and a model, fused by hand: every figure is the place in the list."""
    graph, everything = Graph(), tuple(f"infer t-{name}" for name in ("floor", "model", "floor-valid", "model-valid"))
    for key in everything:
        graph.add(Cell("infer", key.removeprefix("infer "), ("infer",), labels={"system": {"f": "floor", "m": "the model"}[key[8]], "target": "toys"}))
    tests, twins = everything[:2], everything[2:]
    command = ("eval", Use(tests), Use(tests, "--fuse", joined=True, only_with=everything))
    labels = {"target": "toys", "point": "", "group": "", "settings": "{}", "seed": "1", FUSED_LABEL: "all of it"}
    graph.add(Cell("eval", "e", command, wants=tests, extras=twins, labels=labels))
    runs = ("t-floor", "t-model", "fused", "fused without t-model")
    metrics = {
        "n_users": 9,
        "chance": {"ndcg@1": 1 / 30},
        "metrics": {"ndcg@1": {}},
        "bootstrap": {"n_samples": 100, "seed": 7},
        "runs": {run: {"n_users": 9, "metrics": {"ndcg@1": {"value": i / 10, "ci95": [0, 1]}}} for i, run in enumerate(runs)},
        "comparisons": [{"run": "fused", "metric": "ndcg@1", "difference": 0.2, "ci95": [0.1, 0.3], "p": 0.01}],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    frames = [pl.DataFrame({"run": [run] * 3, "user_id": ["a", "b", "c"], "ndcg@1": [i / 10] * 3}) for i, run in enumerate(runs)]
    pl.concat(frames).write_parquet(tmp_path / "per_user.parquet")
    outcomes = {key: Outcome("done", result={"name": key.removeprefix("infer ")}) for key in everything}
    return graph, outcomes | {"eval e": Outcome("done", result={"run_dir": str(tmp_path)})}


def test_rows_of_a_fusion_have_the_labels_of_the_yaml(evaluated: tuple[Graph, dict[str, Outcome]]):
    rows = build_rows(*evaluated, baseline="floor")
    assert [(r.system, r.metrics["ndcg@1"]["value"]) for r in rows] == [
        ("floor", 0.0),
        ("the model", 0.1),
        ("all of it", 0.2),
        ("all of it without the model", 0.3),
        (CHANCE, 1 / 30),
    ]
    assert {r.system: r.differences["ndcg@1"]["p"] for r in rows if r.differences} == {"all of it": 0.01}
    assert {r.n_users for r in rows} == {9}


def test_a_fusion_without_its_validation_rankings_says_what_it_lacks(evaluated: tuple[Graph, dict[str, Outcome]]):
    graph, outcomes = evaluated
    outcomes["infer t-model-valid"] = Outcome("failed", error="x")
    folder = Path(outcomes["eval e"].result["run_dir"])
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["runs"] = {run: block for run, block in metrics["runs"].items() if not run.startswith("fused")}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    states = [(r.system, r.state) for r in build_rows(graph, outcomes, None)]
    assert states == [("floor", "ok"), ("the model", "ok"), ("all of it", "failed: infer t-model-valid"), (CHANCE, "ok")]
    outcomes["infer t-model-valid"] = Outcome("done", result={"name": "t-model-valid"})
    outcomes["eval e"] = Outcome("failed", error="x")
    assert [r.state for r in build_rows(graph, outcomes, None)] == ["failed: eval e"] * 3


def test_fusions_are_pooled_over_seeds_like_every_system(evaluated: tuple[Graph, dict[str, Outcome]]):
    graph, outcomes = evaluated
    first = graph.cells["eval e"]
    graph.add(Cell("eval", "e2", first.command, wants=first.wants, extras=first.extras, labels={**first.labels, "seed": "2"}))
    outcomes["eval e2"] = outcomes["eval e"]
    pooled = {r.system: r.metrics["ndcg@1"]["value"] for r in pool_seeds(graph, outcomes, "floor")}
    assert pooled == pytest.approx({"floor": 0.0, "the model": 0.1, "all of it": 0.2, "all of it without the model": 0.3})


def test_an_evaluation_without_a_fusion_has_no_fused_labels():
    graph = Graph()
    graph.add(Cell("infer", "a", ("infer",), labels={"system": "a"}))
    cell = Cell("eval", "e", ("eval",), wants=("infer a",), labels={"target": "toys"})
    assert fused_labels(cell, graph, {"infer a": Outcome()}, ["a", "fused"]) == {}


YAML = """name: free
data: {config: sports.yaml, domains: [sports]}
targets: [sports]
systems:
  popularity: {ranker: popularity}
  tf-idf: {ranker: tfidf}
  all: {fuse: {of: [popularity, tf-idf], model: logit}}
baseline: popularity
"""
COUNTS = {"build": 1, "mix": 0, "train": 0, "merge": 0, "infer": 4, "eval": 1}


def test_a_whole_ablation_with_a_fusion(workspace: Any, cli: Any, table_domain: Any):
    config = table_domain("sports").with_name("free.yaml")
    config.write_text(YAML, encoding="utf-8")

    def ablate(*more: str) -> dict[str, Any]:
        code, out, err = cli("ablate", config, "--json", *more)
        assert code == 0, err
        return json.loads(out)

    preview = ablate("--dry-run")
    assert (preview["cells"], preview["done"]) == (COUNTS, 0)
    first = ablate()
    assert first["cells"] == {"done": 6, "already done": 0, "failed": 0, "skipped": 0}
    rows = list(csv.DictReader((Path(first["run_dir"]) / "table.csv").open(encoding="utf-8")))
    assert [(r["system"], r["state"], r["users"]) for r in rows] == [(s, "ok", "60") for s in ("popularity", "tf-idf", "all", CHANCE)]
    assert rows[2]["ndcg@1_p"]  # compared with the baseline
    assert ablate("--dry-run")["done"] == 6
    assert ablate()["version"] == first["version"]

    few = ablate("--set", "systems.all.fuse.fit_users=30")  # newer rankings of validation events, by other users
    assert few["cells"] == {"done": 3, "already done": 3, "failed": 0, "skipped": 0}
    assert ablate("--dry-run")["done"] == 6  # the first ones are meant still, though they are not the newest
    assert ablate()["cells"]["already done"] == 6
    fitted = [json.loads(p.read_text())["fusion"]["fitted"]["fused"]["n_users"] for p in sorted(workspace.root.glob("runs/eval/free-sports/*/metrics.json"))]
    assert fitted == [60, 30]


def test_a_fusion_that_cannot_be_fitted_leaves_the_others_their_rows(workspace: Any, cli: Any, table_domain: Any):
    config = table_domain("sports").with_name("free.yaml")
    config.write_text(YAML.replace("ranker: tfidf", "ranker: no-such-ranker"), encoding="utf-8")
    code, out, _ = cli("ablate", config, "--json")
    assert code == 8
    states = {row["system"]: row["state"] for row in json.loads(out)["table"]}
    assert states == {"popularity": "ok", "tf-idf": "failed: infer sports-tf-idf", "all": "failed: infer sports-tf-idf", CHANCE: "ok"}
