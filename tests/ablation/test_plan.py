from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recmerge.ablation.graph import Cell, Graph, Use
from recmerge.ablation.plan import plan_graph
from recmerge.config.ablate import AblateConfig
from recmerge.errors import ConfigError, UsageError


def plan(systems: dict[str, Any], **more: Any) -> Graph:
    settings = {"name": "x", "data": {"config": "sample", "domains": ["sports", "beauty", "toys"]}, "targets": ["sports"], "systems": systems, **more}
    return plan_graph(AblateConfig.model_validate(settings), Path("/configs"))


WEAVEREC = {"merge": {"target": "{target}", "sources": ["beauty", "toys"]}}


def lines(graph: Graph, kind: str) -> list[str]:
    return [" ".join(words) for words, cell in zip(graph.commands(), graph, strict=True) if cell.kind == kind]


def test_weaverec_needs_the_target_and_one_hybrid_per_source():
    graph = plan({"weaverec": WEAVEREC})
    assert graph.counts() == {"build": 3, "mix": 2, "train": 3, "merge": 1, "infer": 1, "eval": 1}
    assert lines(graph, "mix") == ["data mix beauty sports", "data mix sports toys"]
    assert lines(graph, "train") == ["train sports", "train beauty_sports", "train sports_toys"]
    assert lines(graph, "merge") == ["merge --adapters sports,beauty_sports,sports_toys --method weaverec --name sports-weaverec"]
    assert lines(graph, "infer") == ["infer sports --adapter sports-weaverec --name sports-weaverec"]
    assert lines(graph, "eval") == ["eval sports-weaverec --name x-sports"]


def test_only_needed_domains_are_built():
    assert lines(plan({"floor": {"ranker": "popularity"}}), "build") == ["data build sports --config sample"]


def test_three_targets_share_their_hybrids():
    # N domains: N single adapters and N (N - 1) / 2 hybrids, whatever the targets
    graph = plan({"weaverec": {"merge": {"target": "{target}"}}}, targets=["sports", "beauty", "toys"])
    assert graph.counts() == {"build": 3, "mix": 3, "train": 6, "merge": 3, "infer": 3, "eval": 3}


def test_a_hybrid_named_both_ways_is_trained_once():
    graph = plan({"one": {"adapter": "sports_beauty"}, "other": {"adapter": "beauty_sports"}, "union of two": {"union": ["sports", "beauty"]}})
    assert graph.counts() | {"infer": 0} == {"build": 2, "mix": 1, "train": 1, "merge": 0, "infer": 0, "eval": 1}
    assert graph.counts()["infer"] == 3


def test_the_union_of_three_is_one_set():
    graph = plan({"all": {"union": ["toys", "{target}", "beauty"]}})
    assert lines(graph, "mix") == ["data mix beauty sports toys --union"]
    assert lines(graph, "train") == ["train beauty_sports_toys"]


def test_the_target_is_no_source_of_itself():
    graph = plan({"with beauty": {"adapter": "{target}_beauty"}, "own": {"adapter": "{target}"}}, targets=["beauty"])
    assert [c.labels["system"] for c in graph if c.kind == "infer"] == ["own"]


def test_zero_shot_ranks_with_the_base_and_prompt_of_training():
    graph = plan({"zero": {"adapter": "none"}}, train={"config": "nano", "set": {"base": "other"}})
    (line,) = lines(graph, "infer")
    assert line.startswith("infer sports --adapter none --base other --set prompt.style=open ")
    assert graph.counts()["train"] == 0


def test_seeds_are_named_from_the_second_on():
    one = plan({"own": {"adapter": "{target}"}}, seeds=[3])
    assert lines(one, "train") == ["train sports --set seed=3"]
    two = plan({"own": {"adapter": "{target}"}, "floor": {"ranker": "random"}}, seeds=[3, 4])
    assert lines(two, "train") == ["train sports --set seed=3", "train sports --set seed=4 --name sports-seed4"]  # the first shared with `one`
    assert two.counts() == {"build": 1, "mix": 0, "train": 2, "merge": 0, "infer": 3, "eval": 2}  # the floor once


def test_a_matrix_multiplies_only_the_cells_it_changes():
    graph = plan({"weaverec": WEAVEREC}, matrix={"train.lora.rank": [8, 16], "merge.rank_out": ["cat", "svd:8"]})
    assert graph.counts() == {"build": 3, "mix": 2, "train": 6, "merge": 4, "infer": 4, "eval": 4}
    assert (
        "merge --adapters sports-rank8,beauty_sports-rank8,sports_toys-rank8 --method weaverec --name sports-weaverec-rank8-rank_out-svd-8 --rank-out svd:8"
        in lines(graph, "merge")
    )


def test_a_mix_of_another_size_gets_a_name():
    graph = plan({"hybrid": {"adapter": "{target}_toys"}}, matrix={"mix.cap": [100, 200]})
    assert lines(graph, "mix") == [
        "data mix sports toys --set cap=100 --name sports_toys-cap100",
        "data mix sports toys --set cap=200 --name sports_toys-cap200",
    ]
    assert lines(graph, "train") == ["train sports_toys-cap100", "train sports_toys-cap200"]


def test_given_adapters_are_taken_as_they_are():
    graph = plan({"given": {"adapter": "elsewhere/adapter"}})
    assert lines(graph, "infer") == ["infer sports --adapter elsewhere/adapter --name sports-given"]
    assert graph.counts()["train"] == 0


def test_domains_may_hold_an_underscore():
    data = {"domains": ["office_supplies", "toys"]}
    settings = {"name": "x", "data": data, "targets": ["toys"], "systems": {"hybrid": {"adapter": "{target}_office_supplies"}}}
    graph = plan_graph(AblateConfig.model_validate(settings), Path())
    assert lines(graph, "mix") == ["data mix office_supplies toys"]


def test_relative_configs_are_read_beside_the_yaml():
    settings = {"name": "x", "data": {"config": "{domain}.yaml", "domains": ["toys"]}, "targets": ["toys"], "systems": {"floor": {"ranker": "random"}}}
    graph = plan_graph(AblateConfig.model_validate(settings), Path("/configs"))
    assert lines(graph, "build") == ["data build toys --config /configs/toys.yaml"]


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ({"a": {"adapter": "{target}_beuaty"}}, "unknown adapter 'sports_beuaty'"),
        ({"a": {"union": ["sports", "books"]}}, "unknown domain 'books'"),
        ({"a": {"merge": {"adapters": ["{target}", "x@v001"]}}}, "systems.a: merges adapters of this ablation with given ones"),
    ],
)
def test_unknown_adapters_are_refused(systems: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as error:
        plan(systems)
    assert said in error.value.line()


def test_names_that_leave_their_folder_are_refused():
    with pytest.raises(UsageError):
        plan({"a": {"ranker": "random"}}, name="../x")


def test_commands_come_in_an_order_in_which_they_can_run():
    graph = plan({"weaverec": WEAVEREC, "own": {"adapter": "{target}"}}, targets=["sports", "toys"], seeds=[1, 2])
    seen: set[str] = set()
    for cell in graph:
        assert {*cell.needs, *cell.wants} <= seen
        seen.add(cell.key)


def test_a_cell_before_its_input_or_twice_with_another_command_is_a_bug():
    graph = Graph()
    with pytest.raises(ValueError, match="before its input"):
        graph.add(Cell("train", "a", ("train", "a"), needs=("build a",)))
    graph.add(Cell("build", "a", ("data", "build", "a")))
    assert graph.add(Cell("build", "a", ("data", "build", "a"))) == "build a"
    with pytest.raises(ValueError, match="two different commands"):
        graph.add(Cell("build", "a", ("data", "build", "b")))


def test_words_leave_out_what_does_not_exist():
    cell = Cell("eval", "e", ("eval", Use(("a", "b")), Use(("c",), flag="--baseline"), Use(("a", "b"), flag="--fuse", joined=True)))
    assert cell.words({"a": "x", "b": "y", "c": "z"}) == ["eval", "x", "y", "--baseline", "z", "--fuse", "x,y"]
    assert cell.words({"b": "y"}) == ["eval", "y", "--fuse", "y"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"systems": {}}, "systems"),
        ({"systems": {"a": {}}}, "exactly one of adapter, merge, union, ranker and fuse"),
        ({"systems": {"a": {"ranker": "random", "adapter": "none"}}}, "not adapter and ranker"),
        ({"systems": {"a b": {"ranker": "random"}, "a-b": {"ranker": "random"}}}, "labels must differ"),
        ({"systems": {"a": {"ranker": "random", "base": "nano"}}}, "base goes with adapter: none"),
        ({"systems": {"a": {"merge": {"sources": ["toys"]}}}}, "either adapters, or target"),
        ({"targets": ["books"]}, "target 'books'"),
        ({"baseline": "b"}, "baseline 'b'"),
        ({"seeds": [1, 1]}, "seeds names something twice"),
        ({"matrix": {"data.k_core": [5]}}, "must be a setting of"),
        ({"matrix": {"train.lora.rank": [8, 8]}}, "different values"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], said: str):
    settings = {"name": "x", "data": {"domains": ["sports", "toys"]}, "targets": ["sports"], "systems": {"a": {"ranker": "random"}}}
    AblateConfig.model_validate(settings)
    with pytest.raises(ValidationError) as error:
        AblateConfig.model_validate({**settings, **change})
    assert said in str(error.value)


def test_a_merge_may_have_options_of_its_method():
    sources = {"target": "{target}", "sources": ["toys"]}
    systems = {
        "ties": {"merge": {**sources, "method": "ties", "set": {"density": 0.5, "trim": "per_tensor", "lambda": 0.7}}},
        "dare": {"merge": {**sources, "method": "dare_linear", "rank_out": "svd:8", "set": {"seed": 3}}},
        "soup": {"merge": {"adapters": ["{target}"], "seeds": [1, 2], "method": "lora_lego", "set": {"clusters": 4, "seed": 5}}},
    }
    graph = plan(systems)
    assert lines(graph, "merge") == [
        "merge --adapters sports,sports_toys --method ties --name sports-ties --set density=0.5 --set trim=per_tensor --set lambda=0.7",
        "merge --adapters sports,sports_toys --method dare_linear --name sports-dare --rank-out svd:8 --set seed=3",
        "merge --adapters sports-seed1,sports-seed2 --method lora_lego --name sports-soup --set clusters=4 --set seed=5",
    ]
    assert graph.counts()["train"] == 4


def test_a_matrix_goes_over_a_merges_own_options():
    system = {"merge": {"target": "{target}", "sources": ["toys"], "method": "ties", "set": {"density": 0.5, "lambda": 2}}}
    graph = plan({"ties": system}, matrix={"merge.density": [0.1, 0.2]})
    assert [line.partition("--name ")[2] for line in lines(graph, "merge")] == [f"sports-ties-density{d} --set density={d} --set lambda=2" for d in (0.1, 0.2)]


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("ties", {"densty": 0.5}, "'densty'"),
        ("ties", {"density": 1.5}, "'density': Input should be less than or equal to 1"),
        ("ties", {"weights": [1, 2]}, "'weights' is none of the settings that go here: dtype, density, lambda"),
        ("ties", {"seeds": [1, 2]}, "'seeds' is none of"),
        ("ties", {"base": "nano"}, "'base' is none of"),
    ],
)
def test_settings_that_no_merge_has_are_refused(method: str, options: dict[str, Any], said: str):
    with pytest.raises(ValidationError) as error:
        plan({"a": {"merge": {"target": "{target}", "method": method, "set": options}}})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ({"method": "ties", "set": {"seed": 1}}, "systems.a: method 'ties' has no option 'seed'"),
        ({"method": "product", "set": {"density": 0.5}}, "systems.a: method 'product' has no option 'density'"),
        ({"method": "tise", "set": {"density": 0.5}}, "did you mean 'ties'"),
        ({"method": "ties", "rank_out": "cat", "set": {"density": 0.5}}, "systems.a: rank-out cat cannot hold"),
    ],
)
def test_options_that_a_method_lacks_are_refused_before_anything_is_trained(merge: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as error:
        plan({"a": {"merge": {"target": "{target}", **merge}}})
    assert said in error.value.line()


def test_a_soup_is_the_trainings_of_other_seeds_merged_once():
    soup = {"merge": {"adapters": ["{target}"], "seeds": [1, 2, 3], "method": "product"}}
    graph = plan({"own": {"adapter": "{target}"}, "soup": soup}, seeds=[1, 2])
    assert lines(graph, "train") == ["train sports --set seed=1", *(f"train sports --set seed={s} --name sports-seed{s}" for s in (2, 3))]
    assert lines(graph, "merge") == ["merge --adapters sports,sports-seed2,sports-seed3 --method product --name sports-soup"]
    assert [c.name for c in graph if c.kind == "infer"] == ["sports-own", "sports-soup", "sports-own-seed2"]
    assert lines(graph, "eval")[0] == "eval sports-own sports-soup --name x-sports-seed1"
    assert lines(graph, "eval")[1] == "eval sports-own-seed2 sports-soup --name x-sports-seed2"


def test_a_soup_without_a_grid_of_seeds_has_names_of_its_own():
    graph = plan({"own": {"adapter": "{target}"}, "soup": {"merge": {"adapters": ["{target}"], "seeds": [1, 2]}}})
    assert [c.name for c in graph if c.kind == "train"] == ["sports", "sports-seed1", "sports-seed2"]


def test_a_soup_takes_the_training_of_the_grids_only_seed():
    soup = {"merge": {"adapters": ["{target}"], "seeds": [1, 2]}}
    graph = plan({"own": {"adapter": "{target}"}, "soup": soup}, seeds=[1])
    assert lines(graph, "train") == ["train sports --set seed=1", "train sports --set seed=2 --name sports-seed2"]
    assert lines(graph, "merge") == ["merge --adapters sports,sports-seed2 --method weaverec --name sports-soup"]


def test_a_system_may_train_its_adapters_otherwise():
    graph = plan({"own": {"adapter": "{target}"}, "three times as long": {"adapter": "{target}", "train": {"steps": 900, "lora": {"rank": 8}}}}, seeds=[5])
    assert lines(graph, "train") == [
        "train sports --set seed=5",
        "train sports --set seed=5 --set steps=900 --set lora.rank=8 --name sports-three-times-as-long",
    ]


def test_a_slow_ranker_is_trained_first_and_a_quick_one_with_settings_of_its_own_too():
    systems = {"SASRec": {"ranker": "sasrec", "train": {"width": 32}}, "wide": {"ranker": "itemknn", "train": {"k": 500}}, "floor": {"ranker": "popularity"}}
    graph = plan(systems, rankers={"minutes": 2}, seeds=[3, 4])
    assert lines(graph, "train") == [
        "train sports --ranker sasrec --set ranker.minutes=2 --set ranker.width=32 --set seed=3 --name sports-sasrec",
        "train sports --ranker itemknn --set ranker.k=500 --set seed=3 --name sports-wide",
        "train sports --ranker sasrec --set ranker.minutes=2 --set ranker.width=32 --set seed=4 --name sports-sasrec-seed4",
        "train sports --ranker itemknn --set ranker.k=500 --set seed=4 --name sports-wide-seed4",
    ]
    assert "infer sports --ranker sports-sasrec-seed4 --name sports-sasrec-seed4" in lines(graph, "infer")
    assert [line for line in lines(graph, "infer") if "popularity" in line] == ["infer sports --ranker popularity --name sports-floor"]


def test_a_grid_over_what_rankers_are_set_to():
    systems = {"sasrec": {"ranker": "sasrec"}, "floor": {"ranker": "popularity"}}
    graph = plan(systems, rankers={"minutes": 2}, matrix={"rankers.dropout": [0.2, 0.5], "rankers.k": [1]})
    assert lines(graph, "train") == [
        "train sports --ranker sasrec --set ranker.minutes=2 --set ranker.dropout=0.2 --name sports-sasrec-dropout0.2",
        "train sports --ranker sasrec --set ranker.minutes=2 --set ranker.dropout=0.5 --name sports-sasrec-dropout0.5",
    ]
    assert graph.counts()["infer"] == 3  # the floor once
    assert lines(graph, "eval") == [f"eval sports-sasrec-dropout{rate} sports-floor --name x-sports-dropout{rate}" for rate in (0.2, 0.5)]


def test_a_ranker_of_a_union_is_trained_once_for_all_targets():
    graph = plan({"own": {"ranker": "sasrec"}, "all": {"ranker": "sasrec", "union": ["sports", "beauty"]}}, targets=["sports", "beauty"])
    assert lines(graph, "train") == [
        "train sports --ranker sasrec --name sports-own",
        "train beauty_sports --ranker sasrec --name beauty_sports-all",
        "train beauty --ranker sasrec --name beauty-own",
    ]
    assert [line for line in lines(graph, "infer") if "-all" in line] == [
        "infer sports --ranker beauty_sports-all --name sports-all",
        "infer beauty --ranker beauty_sports-all --name beauty-all",
    ]
    with pytest.raises(ConfigError, match="unknown domain 'shoes'"):
        plan({"all": {"ranker": "sasrec", "union": ["sports", "shoes"]}})


@pytest.mark.parametrize(
    "system",
    [
        {"merge": {"adapters": ["sports", "beauty"], "seeds": [1, 2]}},
        {"merge": {"adapters": ["sports"], "seeds": [1, 1]}},
        {"merge": {"target": "sports", "seeds": [1, 2]}},
        {"fuse": ["a", "b"], "train": {"steps": 3}},
        {"adapter": "none", "train": {"steps": 3}},
    ],
)
def test_soups_and_trainings_that_mean_nothing(system: dict[str, Any]):
    with pytest.raises(ValidationError, match=r"seeds make a soup|train goes with"):
        plan({"odd": system})
