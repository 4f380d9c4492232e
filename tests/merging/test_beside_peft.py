"""peft 0.21's silent cases, one by one: what `add_weighted_adapter` makes of them, and what recmerge does with the same files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recmerge.runs import Workspace
from tests.merging.tiny import peft_adapters, peft_deltas, tiny_qwen2
from tests.stages.test_merge import Cli, one_line

Deltas = dict[str, np.ndarray]
Make = Callable[..., list[Path]]


@pytest.fixture
def base(workspace: Workspace) -> Path:
    tiny_qwen2().save_pretrained(workspace.root / "base")
    return workspace.root / "base"


@pytest.fixture
def make(workspace: Workspace, base: Path) -> Make:
    return lambda *settings: peft_adapters(workspace.root, base, settings)


def load(base: Path, paths: list[Path]) -> Any:
    """Load adapters a0, a1 ... into one peft model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), paths[0], "a0")
    for i, path in enumerate(paths[1:], 1):
        model.load_adapter(path, f"a{i}")
    return model


def deltas_in(model: Any, name: str = "m") -> Deltas:
    """Return what peft's merged adapter adds to every weight."""
    layers = {n: layer for n, layer in model.base_model.model.named_modules() if hasattr(layer, "get_delta_weight") and name in layer.lora_A}
    return {n: layer.get_delta_weight(name).detach().double().numpy() for n, layer in layers.items()}


def theirs(base: Path, paths: list[Path], weights: list[float], rule: str, **more: Any) -> Deltas:
    model = load(base, paths)
    model.add_weighted_adapter([f"a{i}" for i in range(len(paths))], weights, "m", combination_type=rule, **more)
    return deltas_in(model)


def ours(cli: Cli, base: Path, paths: list[Path], weights: list[float], *words: str) -> Deltas:
    """Merge with recmerge and let plain peft load the result."""
    out = paths[0].parent / "merged"
    code, _, err = cli("merge", "--adapters", ",".join(map(str, paths)), "--weights", ",".join(map(str, weights)), "--name", "m", "--out", out, *words)
    assert code == 0, err
    return peft_deltas(base, out)


def exact(base: Path, paths: list[Path], weights: list[float]) -> Deltas:
    parts = [peft_deltas(base, p) for p in paths]
    return {m: sum(w * p[m] for w, p in zip(weights, parts, strict=True)) for m in parts[0]}  # type: ignore[misc]


def error(found: Deltas, meant: Deltas) -> float:
    """Return the relative Frobenius distance over all modules."""
    assert set(found) == set(meant)
    return math.sqrt(sum(np.sum((found[m] - meant[m]) ** 2) for m in meant) / sum(np.sum(meant[m] ** 2) for m in meant))


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.3], [1.0, -1.0]])
def test_linear_holds_cross_terms(base: Path, make: Make, cli: Cli, weights: list[float]) -> None:
    paths = make({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 8})
    meant = exact(base, paths, weights)
    assert error(theirs(base, paths, weights, "linear"), meant) > 0.5
    assert error(ours(cli, base, paths, weights, "--method", "product"), meant) < 1e-6


def test_svd_is_scaled_once(base: Path, make: Make, cli: Cli) -> None:
    # until 0.20 peft's svd was the scaling too large; now it agrees, by a dense decomposition
    paths, weights = make({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 8}), [0.5, 0.5]
    best = {}
    for module, matrix in exact(base, paths, weights).items():
        u, s, vt = np.linalg.svd(matrix)
        best[module] = (u[:, :4] * s[:4]) @ vt[:4]
    assert error(ours(cli, base, paths, weights, "--method", "product", "--rank-out", "svd:4"), best) < 1e-6
    assert error(theirs(base, paths, weights, "svd", svd_rank=4), best) < 1e-5


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.25, 0.25]])
def test_another_number_of_weights_passes_in_silence(base: Path, make: Make, cli: Cli, weights: list[float]) -> None:
    paths = make({"r": 4}, {"r": 4})
    found = theirs(base, paths, weights, "cat")
    assert error(found, exact(base, paths, [*weights, 0.0][:2])) < 1e-5  # the rest is left out
    one_line(cli("merge", "--adapters", ",".join(map(str, paths)), "--weights", ",".join(map(str, weights)), "--name", "m"), 2, "for 2 adapters")


def test_a_weight_of_nan_passes_in_silence(base: Path, make: Make, cli: Cli) -> None:
    paths = make({"r": 4}, {"r": 4})
    assert all(np.isnan(d).any() for d in theirs(base, paths, [0.5, math.nan], "cat").values())
    one_line(cli("merge", "--adapters", ",".join(map(str, paths)), "--weights", "0.5,nan", "--name", "m"), 2, "nan")


def test_a_name_that_exists_keeps_the_old_adapter(base: Path, make: Make, cli: Cli) -> None:
    paths = make({"r": 4}, {"r": 4})
    model = load(base, paths)
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        assert model.add_weighted_adapter(["a0", "a1"], weights, "m", combination_type="cat") is None
    assert error(deltas_in(model), exact(base, paths, [1.0, 0.0])) < 1e-6  # the first merge, not the second
    words = ["merge", "--adapters", ",".join(map(str, paths)), "--name", "m"]
    for i, weights in enumerate(("1,0", "0,1"), 1):
        code, out, err = cli(*words, "--weights", weights, "--json")
        assert code == 0, err
        assert f"runs/merge/m/v00{i}" in out
    root = paths[0].parent / "runs/merge/m"
    assert error(peft_deltas(base, root / "v001/adapter"), exact(base, paths, [1.0, 0.0])) < 1e-6
    assert error(peft_deltas(base, root / "v002/adapter"), exact(base, paths, [0.0, 1.0])) < 1e-6


@pytest.mark.parametrize("rule", ["cat", "linear"])
def test_rank_stabilised_adapters_come_out_too_large(base: Path, make: Make, cli: Cli, rule: str) -> None:
    paths = make({"r": 4, "lora_alpha": 8, "use_rslora": True}, {"r": 4, "lora_alpha": 8, "use_rslora": True})
    meant = exact(base, paths, [1.0, 0.0])  # the first adapter itself
    rank = 8 if rule == "cat" else 4
    assert error(theirs(base, paths, [1.0, 0.0], rule), meant) == pytest.approx(math.sqrt(rank) - 1, rel=1e-4)
    assert error(ours(cli, base, paths, [1.0, 0.0], "--method", "product"), meant) < 1e-6


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"use_dora": True}, "use_dora"), ({"lora_bias": True}, "lora_bias"), ({"modules_to_save": ["lm_head"]}, "modules_to_save")],
)
def test_more_than_lora_is_lost_in_silence(base: Path, make: Make, cli: Cli, setting: dict[str, Any], said: str) -> None:
    import torch

    paths = make({"r": 4, **setting})
    model = load(base, paths)
    trained = [p for n, p in model.named_parameters() if "magnitude" in n or "lora_B.a0.bias" in n or "modules_to_save.a0" in n]
    assert trained
    with torch.no_grad():
        for tensor in trained:
            tensor.mul_(1.5).add_(0.5)  # as training would have moved it
    before = logits(model)
    model.add_weighted_adapter(["a0"], [1.0], "m", combination_type="linear")
    model.set_adapter("m")
    assert torch.linalg.norm(logits(model) - before) > 0.01 * torch.linalg.norm(before)  # a merge of one adapter is not that adapter
    one_line(cli("merge", "--adapters", paths[0], "--name", "m"), 4, said)


def test_unequal_ranks_in_one_adapter_cannot_be_loaded_again(base: Path, make: Make, cli: Cli) -> None:
    # rank_pattern: peft's linear writes modules of a smaller rank than its config says
    setting = {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2}}
    paths = make(setting, setting)
    model = load(base, paths)
    model.add_weighted_adapter(["a0", "a1"], [0.5, 0.5], "m", combination_type="linear")
    folder = paths[0].parent / "theirs"
    model.save_pretrained(folder, selected_adapters=["m"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft_deltas(base, folder / "m")
    assert error(ours(cli, base, paths, [0.5, 0.5], "--method", "product"), exact(base, paths, [0.5, 0.5])) < 1e-6


def test_ties_trims_a_and_b_apart(base: Path, make: Make, cli: Cli) -> None:
    paths, weights = make({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 8}), [1.0, 1.0]
    parts = [peft_deltas(base, p) for p in paths]
    meant = {}
    for module in parts[0]:
        trimmed = []
        for part in parts:
            magnitudes = np.sort(np.abs(part[module]).ravel())
            trimmed.append(part[module] * (np.abs(part[module]) >= magnitudes[-(magnitudes.size // 2)]))
        sign = np.sign(sum(trimmed))
        agreeing = [t * (np.sign(t) == sign) for t in trimmed]
        meant[module] = sum(agreeing) / np.maximum(sum((a != 0).astype(int) for a in agreeing), 1)
    words = ["--method", "ties", "--set", "density=0.5", "--set", "trim=per_tensor", "--rank-out", "svd:64"]
    assert error(ours(cli, base, paths, weights, *words), meant) < 1e-5
    assert error(theirs(base, paths, weights, "ties", density=0.5), meant) > 0.5


def test_an_adapter_of_another_base_and_one_with_nan_load_in_silence(workspace: Workspace, base: Path, make: Make, cli: Cli) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    paths = make({"r": 4}, {"r": 4})
    config = paths[1] / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), "somebody/elses-base"))
    weights = paths[1] / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    save_file({**tensors, first: torch.full_like(tensors[first], math.nan)}, weights, metadata={"format": "pt"})
    assert any(np.isnan(d).any() for d in theirs(base, paths, [0.5, 0.5], "cat").values())
    words = ["merge", "--adapters", ",".join(map(str, paths)), "--name", "m"]
    one_line(cli(*words), 4, "somebody/elses-base")
    one_line(cli(*words, "--allow-base-mismatch"), 4, first)
