"""What is refused or warned of before a merge, and what is compared after it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recmerge.errors import ArtifactError, UsageError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.lm.adapter_write import AdapterShape
from recmerge.merging import METHODS
from recmerge.merging.check import check_adapters, check_bases, check_weights, check_written
from recmerge.merging.combine import Merged
from recmerge.merging.parts import LowRank
from recmerge.merging.report import inference_cost, module_report, report_text, summarise
from tests.merging.tiny import Q, V, random_lora, stream_lora, write_lora


def opened(tmp_path: Path, *settings: dict[str, Any]) -> list[AdapterFile]:
    return [AdapterFile(random_lora(tmp_path / f"a{i}", i, **s), f"a{i}") for i, s in enumerate(settings)]


def warnings_of(adapters: list[AdapterFile], method: str = "product") -> list[str]:
    told: list[str] = []
    check_adapters(adapters, METHODS[method], method, told.append)
    return told


def test_weights_default_to_equal_ones() -> None:
    assert check_weights(None, 4) == [0.25] * 4
    assert check_weights([0.4, -0.3], 2) == [0.4, -0.3]


@pytest.mark.parametrize("name", METHODS)
def test_published_rules_that_add_have_weights_of_one(name: str) -> None:
    averages = name in ("weaverec", "product", "factor", "linear")
    assert check_weights(None, 4, METHODS[name]) == [0.25 if averages else 1.0] * 4


def test_shares_cannot_be_negative() -> None:
    assert check_weights([0.0, 2.0], 2, METHODS["lora_lego"]) == [0.0, 2.0]
    assert check_weights([1.0, -1.0], 2, METHODS["task_arithmetic"]) == [1.0, -1.0]
    with pytest.raises(UsageError, match=r"weight -1 .*shares"):
        check_weights([1.0, -1.0], 2, METHODS["lora_lego"])


@pytest.mark.parametrize(("weights", "n"), [(None, 0), ([], 2), ([0.5], 2), ([0.2, 0.3, 0.5], 2), ([math.nan, 1.0], 2), ([1.0, -math.inf], 2), ([0.0, 0.0], 2)])
def test_bad_weights_are_refused(weights: list[float] | None, n: int) -> None:
    with pytest.raises(UsageError):
        check_weights(weights, n)


def test_product_takes_unequal_ranks_and_modules_and_factor_names_the_first(tmp_path: Path) -> None:
    adapters = opened(tmp_path, {"rank": 2}, {"rank": 3, "modules": [V]})
    assert warnings_of(adapters) == []
    with pytest.raises(ArtifactError, match=f"a1 lacks {Q}"):
        warnings_of(adapters, "factor")
    with pytest.raises(ArtifactError, match=rf"equal rank .*{V} has 2, 3"):
        warnings_of(adapters, "linear")
    scaled = opened(tmp_path / "s", {}, {"lora_alpha": 7})
    with pytest.raises(ArtifactError, match=rf"equal scaling .*{Q} has 1, 3\.5"):
        warnings_of(scaled, "factor")


def test_shapes_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"{Q} has different shapes"):
        warnings_of(opened(tmp_path, {"out": 6}, {"out": 7}))


def test_factor_warns_of_other_or_unknown_starts(tmp_path: Path) -> None:
    same = opened(tmp_path / "x", {"card": {"lora_init_sha256": "aa"}}, {"card": {"lora_init_sha256": "aa"}})
    other = opened(tmp_path / "y", {"card": {"lora_init_sha256": "aa"}}, {"card": {"lora_init_sha256": "bb"}})
    unknown = opened(tmp_path / "z", {"card": {"lora_init_sha256": "aa"}}, {})
    assert warnings_of(same, "factor") == []
    assert "did not" in warnings_of(other, "factor")[0]
    assert "a1 does not say" in warnings_of(unknown, "factor")[0]
    assert warnings_of(other, "product") == []


def test_twins_and_other_prompts_are_warned_of(tmp_path: Path) -> None:
    folder = random_lora(tmp_path / "a", 0)
    assert "twice" in warnings_of([AdapterFile(folder), AdapterFile(folder)])[0]
    assert "prompts" in warnings_of(opened(tmp_path, {"card": {"prompt": {"style": "open"}}}, {"card": {"prompt": {"style": "listwise"}}}))[0]


@pytest.mark.parametrize(
    ("one", "two", "key"),
    [
        ({"base_model_name_or_path": "x/a"}, {"base_model_name_or_path": "x/b"}, "ref"),
        ({"revision": "r1"}, {"revision": "r2"}, "revision"),
        ({"card": {"base": {"fingerprint": "f1"}}}, {"card": {"base": {"fingerprint": "f2"}}}, "fingerprint"),
        ({"card": {"tokenizer_sha256": "t1"}}, {"card": {"tokenizer_sha256": "t2"}}, "tokenizer_sha256"),
    ],
)
def test_other_bases_are_refused_unless_allowed(tmp_path: Path, one: dict[str, Any], two: dict[str, Any], key: str) -> None:
    adapters = opened(tmp_path, one, two)
    with pytest.raises(ArtifactError, match=key):
        check_bases(adapters, False, lambda text: None)
    told: list[str] = []
    found = check_bases(adapters, True, told.append)
    assert len(found) == 1
    assert key in told[0]


def test_equal_fingerprints_outweigh_names(tmp_path: Path) -> None:
    card = {"card": {"base": {"fingerprint": "f"}}}
    assert (
        check_bases(opened(tmp_path, {**card, "base_model_name_or_path": "/here"}, {**card, "base_model_name_or_path": "/there"}), False, lambda t: None) == []
    )


def test_adapters_without_a_base_are_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    assert check_bases(opened(tmp_path, {}, {"base_model_name_or_path": None}), False, told.append) == []
    assert "a1 does not name its base" in told[0]


def test_written_is_checked_as_others_will_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    digest = stream_lora(folder, {Q: ([[0.1], [2.0]], [[3.0, 0.7]])}, AdapterShape("b", ["q_proj"]))
    check_written(AdapterFile(folder), [Q])
    assert AdapterFile(folder).sha256 == digest
    with pytest.raises(ArtifactError, match=V):
        check_written(AdapterFile(folder), [Q, V])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2}))
    with pytest.raises(ArtifactError, match=f"{Q} has scaling 2"):
        check_written(AdapterFile(folder), [Q])


def test_report_by_hand(tmp_path: Path) -> None:
    from tests.merging.test_rules import ONE, TWO_AT_2

    # task vectors 2 [[1,1],[0,0]] and 2 [[0,0],[2,4]]: norms sqrt(8) and sqrt(80), at right angles
    row = module_report(Merged([ONE, TWO_AT_2], LowRank(ONE.B, ONE.A), 0.75, (3, 1)))
    assert row["norms"] == pytest.approx([math.sqrt(8), math.sqrt(80)])
    np.testing.assert_allclose(row["cosine"], [[1, 0], [0, 1]], atol=1e-15)
    assert row["merged_norm"] == pytest.approx(math.sqrt(2))
    summary = summarise({"m1": {**row, "relative_error": 1e-8}, "m2": {**row, "energy_lost": 0.0, "relative_error": 3e-8}}, 2)
    assert summary["task_vector_norms"] == pytest.approx([4, math.sqrt(160)])
    assert summary["energy_lost"] == pytest.approx(1 - 4 / 10)  # kept 2 of 8, and 2 of 2
    assert summary["max_relative_error"] == 3e-8
    assert summary["kept"] == [6, 2]


def test_cosines_of_whole_task_vectors_by_hand() -> None:
    # 1: norms 3 and 4, cosine 0.5; 2: norms 4 and 3, cosine -0.5; whole: norms 5 and 5, cosine (6 - 6) / 25
    def row(norms: list[float], cosine: float, conflict: float | None) -> dict[str, Any]:
        pair = [[1, cosine], [cosine, 1]]
        signs = [[0, conflict], [conflict, 0]]
        return {"norms": norms, "cosine": pair, "sign_conflict": signs, "weighted_sign_conflict": signs, "merged_norm": 1.0, "energy_lost": 0.0}

    found = summarise({"a": row([3.0, 4.0], 0.5, 0.25), "b": row([4.0, 3.0], -0.5, 0.75)}, 2)
    np.testing.assert_allclose(found["cosine"], [[1, 0], [0, 1]], atol=1e-15)
    assert (found["mean_cosine"], found["sign_conflict"][0][1]) == (0.0, 0.5)
    assert summarise({"a": row([3.0, 4.0], 0.5, 0.25), "b": row([4.0, 0.0], math.nan, None)}, 2)["weighted_sign_conflict"][0][1] == 0.25  # known only there


def test_cost_at_inference_by_hand(tmp_path: Path) -> None:
    adapters = [AdapterFile(write_lora(tmp_path, {"m1": (np.ones((3, 2)), np.ones((2, 4)))}))]
    cost = inference_cost(adapters, 5)
    assert cost.pop("latency").keys() == {"out", "in", "rank", "tokens", "base_ms", "merged_ms"}
    # 3 x 4 numbers, one product and one sum each; rank 5 times 3 + 4
    assert cost == {"rank": 5, "added_parameters": 35, "largest_input_parameters": 14, "base_flops_per_token": 24, "added_flops_per_token": 70}
    assert inference_cost(adapters, 0)["added_parameters"] == 0


def test_a_report_has_one_line_per_module_and_reads_back() -> None:
    report = {"schema": 2, "method": 'a "modules": {} b', "modules": {'m"1': {"rank": 1, "norms": [0.5]}, "m2": {"rank": 2, "norms": [None]}}}
    text = report_text(report)
    assert json.loads(text) == report
    assert '    "m2": {"rank": 2, "norms": [null]}\n' in text


def test_a_zero_task_vector_has_no_cosine() -> None:
    from tests.merging.test_rules import ABSENT, ONE

    assert module_report(Merged([ONE, ABSENT], LowRank(ONE.B, ONE.A), 0.0, ()))["cosine"][1] == [None, None]
