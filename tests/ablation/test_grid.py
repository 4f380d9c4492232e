from recmerge.ablation.grid import flatten, points, set_words
from recmerge.config.loader import load
from recmerge.config.train import TrainConfig


def test_a_grid_without_axes_is_one_point_that_changes_nothing():
    (point,) = points([], {})
    assert point.suffix({"train", "merge", "infer"}) == ""
    assert point.label() == ""
    assert point.overrides("train") == {}


def test_one_seed_is_set_but_not_named():
    (point,) = points([7], {})
    assert point.overrides("train") == {"seed": 7}
    assert point.suffix({"train"}) == ""


def test_every_combination_once_with_names_that_differ():
    grid = points([1, 2], {"train.lora.rank": [8, 16], "merge.rank_out": ["cat", "svd:16"]})
    assert len(grid) == 2 * 2 * 2
    names = [p.suffix({"train", "merge"}) for p in grid]
    assert len(set(names)) == 8
    assert names[0] == "-rank8-rank_out-cat"
    assert grid[0].suffix({"train"}, every_seed=True) == "-rank8-seed1"
    assert "-rank16-rank_out-svd-16-seed2" in names


def test_a_suffix_holds_only_the_stages_that_matter():
    point = points([1, 2], {"train.lora.rank": [8, 16], "merge.rank_out": ["cat", "svd:16"]})[0]
    assert point.suffix({"train"}) == "-rank8"
    assert point.suffix({"infer"}) == ""


def test_keys_that_end_alike_are_told_apart():
    point = points([], {"train.prompt.max_length": [64, 128], "infer.prompt.max_length": [64, 128]})[0]
    assert point.suffix({"train", "infer"}) == "-train.prompt.max_length64-infer.prompt.max_length64"


def test_set_words_read_back_as_the_same_values():
    settings = {"lora": {"rank": 8, "target_modules": ["q_proj", "v_proj"]}, "learning_rate": 1e-4, "revision": "0123", "base": "none"}
    words = set_words(settings)
    assert words[::2] == ["--set"] * 5
    config = load(TrainConfig, "train", "nano", {}, words[1::2])
    assert config.lora.rank == 8
    assert config.lora.target_modules == ["q_proj", "v_proj"]
    assert config.learning_rate == 0.0001
    assert config.revision == "0123"  # a word, though it looks like a number
    assert config.base == "none"


def test_flatten_leaves_dotted_keys_as_they_are():
    assert flatten({"a.b": 1, "c": {"d": {"e": [2]}}}) == {"a.b": 1, "c.d.e": [2]}
