"""`recmerge merge` with the methods that have options: into an adapter, into the base, recorded, and refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging import METHODS
from recmerge.runs import Workspace
from tests.merging.tiny import Q, V, merger, peft_adapters, random_lora, tiny_qwen2
from tests.stages.test_merge import Cli, dense, one_line, timeless_report

OWN = [name for name in METHODS if METHODS[name].options]
SET: dict[str, Any] = {"density": 0.5, "lambda": 0.7, "trim": "per_tensor", "seed": 3, "clusters": 2}


def words_for(method: str) -> list[str]:
    return [w for name in METHODS[method].options for w in ("--set", f"{name}={SET[name]}")]


def options_of(method: str) -> dict[str, Any]:
    return {name: SET[name] for name in METHODS[method].options}


@pytest.fixture
def files(workspace: Workspace) -> list[AdapterFile]:
    folders = [
        random_lora(workspace.root / "a", 1, rank=3, out=13, width=9),
        random_lora(workspace.root / "b", 2, rank=2, modules=[V], out=13, width=9, lora_alpha=5),
        random_lora(workspace.root / "c", 3, rank=5, out=13, width=9, use_rslora=True),
    ]
    return [AdapterFile(f) for f in folders]


def exact(files: list[AdapterFile], method: str, module: str) -> np.ndarray:
    delta = merger(method, files, [1.0] * 3, **{"lambda_" if k == "lambda" else k: v for k, v in options_of(method).items()}).module(module).delta
    return delta.matrix if METHODS[method].full_rank else delta.B @ delta.A


@pytest.mark.parametrize("method", OWN)
def test_into_an_adapter_of_the_best_rank(files: list[AdapterFile], workspace: Workspace, cli: Cli, method: str) -> None:
    code, out, err = cli("merge", "--adapters", "a,b,c", "--method", method, *words_for(method), "--rank-out", "svd:2", "--name", "m", "--json")
    assert code == 0, err
    answer = json.loads(out)
    folder = Path(answer["run_dir"])
    report = json.loads((folder / "merge_report.json").read_text())
    for module in (Q, V):
        whole = exact(files, method, module)
        s = np.linalg.svd(whole, compute_uv=False)
        optimum = (s[2:] ** 2).sum() / (s**2).sum()
        assert np.linalg.norm(dense(folder / "adapter", module) - whole) ** 2 / (s**2).sum() == pytest.approx(optimum, abs=1e-6)
        row = report["modules"][module]
        assert row["energy_lost"] == pytest.approx(optimum, abs=1e-6)
        assert row["merged_norm"] ** 2 == pytest.approx((s[:2] ** 2).sum(), rel=1e-5)
        assert row["relative_error"] <= 1e-6
    assert len(report["modules"][Q]["norms"]) == 3
    assert report["modules"][Q]["cosine"][1] == [None, None, None]  # the second adapter does not have it


@pytest.mark.parametrize("method", OWN)
def test_everything_is_recorded(files: list[AdapterFile], workspace: Workspace, cli: Cli, method: str) -> None:
    code, out, err = cli("merge", "--adapters", "a,b,c", "--method", method, *words_for(method), "--name", "m", "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["run_dir"])
    manifest = json.loads((folder / "manifest.json").read_text())
    report = json.loads((folder / "merge_report.json").read_text())
    card = json.loads((folder / "adapter/recmerge.json").read_text())
    expected = options_of(method)
    assert {k: manifest["config"][k] for k in SET if k in manifest["config"]} == expected  # and none that the method lacks
    assert manifest["seeds"] == ({"merge": 3} if "seed" in expected else {})
    assert report["options"] == card["options"] == manifest["facts"]["options"] == expected
    rank_out = "svd:5" if METHODS[method].full_rank else "cat"
    assert manifest["config"]["rank_out"] == report["rank_out"] == card["rank_out"] == manifest["facts"]["rank_out"] == rank_out
    text = (folder / "adapter/README.md").read_text()
    assert f"`{method}`: " in text
    for name, value in expected.items():
        assert f"{name} {value}" in text
    if METHODS[method].full_rank:
        counts = [report["modules"][m]["kept"] for m in (Q, V)]
        assert report["summary"]["kept"] == manifest["facts"]["kept"] == [sum(c) for c in zip(*counts, strict=True)]
        assert [a["entries"] for a in report["adapters"]] == [2 * 13 * 9, 13 * 9, 2 * 13 * 9]
        assert 0.3 < sum(report["summary"]["kept"]) / (5 * 13 * 9) < 0.7


@pytest.mark.parametrize("method", OWN)
def test_two_merges_hold_the_same_bytes(files: list[AdapterFile], workspace: Workspace, cli: Cli, method: str) -> None:
    for name in ("one", "two"):
        assert cli("merge", "--adapters", "a,b,c", "--method", method, "--name", name)[0] == 0
    one, two = (workspace.root / f"runs/merge/{n}/v001" for n in ("one", "two"))
    for path in ("adapter/adapter_model.safetensors", "adapter/recmerge.json"):
        assert (one / path).read_bytes() == (two / path).read_bytes()
    assert timeless_report(one) == timeless_report(two)


@pytest.mark.parametrize("method", OWN)
def test_into_the_base(workspace: Workspace, cli: Cli, method: str) -> None:
    from transformers import AutoModelForCausalLM

    base = workspace.root / "base"
    tiny_qwen2().save_pretrained(base)
    paths = peft_adapters(workspace.root, base, [{"r": 2}, {"r": 3, "target_modules": ["q_proj"]}])
    code, out, err = cli("merge", "--adapters", ",".join(map(str, paths)), "--method", method, "--rank-out", "fold", "--name", "m", "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["run_dir"])
    before, after = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (base, folder / "model"))
    merge = merger(method, [AdapterFile(p) for p in paths], [1.0, 1.0])
    for module in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        delta = merge.module(module).delta
        expected = delta.matrix if METHODS[method].full_rank else delta.B @ delta.A
        change = (after[f"{module}.weight"].double() - before[f"{module}.weight"].double()).numpy()
        np.testing.assert_allclose(change, expected, atol=1e-7)
        assert np.abs(change).max() > 1e-3
    report = json.loads((folder / "merge_report.json").read_text())
    assert report["summary"]["energy_lost"] == 0.0
    assert report["inference"]["added_parameters"] == 0


def test_a_domain_is_taken_out(files: list[AdapterFile], workspace: Workspace, cli: Cli) -> None:
    assert cli("merge", "--adapters", "a,c", "--method", "task_arithmetic", "--weights", "1,-1", "--name", "m")[0] == 0
    found = dense(workspace.root / "runs/merge/m/v001/adapter", Q)
    np.testing.assert_allclose(found, dense(workspace.root / "a", Q) - dense(workspace.root / "c", Q), rtol=1e-5, atol=1e-6)


def test_check_and_list_show_the_options(files: list[AdapterFile], cli: Cli) -> None:
    code, out, err = cli("merge", "--adapters", "a,b,c", "--method", "ties", "--check", "--set", "density=0.5")
    assert code == 0, err
    assert out.startswith("method ties, density 0.5, trim whole, lambda 1.0, rank-out svd:5: 2 modules")
    listed = {line.split()[0]: line for line in cli("merge", "--list-methods")[1].splitlines()}
    assert listed["dare_ties"].endswith("Options (--set): density=0.8, seed=0, lambda=1.0")
    assert "Options" not in listed["product"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "ties", "--rank-out", "cat"], ["rank-out cat", "'ties'", "--rank-out svd:16", "fold"]),
        (["--method", "product", "--set", "density=0.5"], ["'product' has no option 'density'", "none", "ties"]),
        (["--set", "lambda=2"], ["'weaverec' has no option 'lambda'"]),
        (["--method", "ties", "--set", "seed=1"], ["'ties' has no option 'seed'", "density, trim, lambda"]),
        (["--method", "ties", "--set", "density=0"], ["density = 0", "greater than 0"]),
        (["--method", "ties", "--set", "density=1.5"], ["density = 1.5", "less than or equal to 1"]),
        (["--method", "ties", "--set", "density=nan"], ["density"]),
        (["--method", "ties", "--set", "lambda=.inf"], ["lambda = inf", "finite"]),
        (["--method", "ties", "--set", "trim=half"], ["trim = 'half'", "whole", "per_tensor"]),
        (["--method", "dare_linear", "--set", "seed=-1"], ["seed = -1"]),
        (["--method", "lora_lego", "--set", "clusters=0"], ["clusters = 0"]),
        (["--method", "lora_lego", "--weights", "1,-1"], ["weight -1", "at least 0"]),
        (["--method", "ties", "--weights", "1"], ["1 weights for 2 adapters"]),
        (["--method", "tie"], ["'tie'", "ties"]),
        (["--method", "ties", "--set", "densty=0.5"], ["densty", "density"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_opened(workspace: Workspace, cli: Cli, words: list[str], said: list[str]) -> None:
    one_line(cli("merge", "--adapters", "missing1,missing2", "--name", "m", *words), 2, *said)
    assert not (workspace.root / "runs").exists()


def test_a_cat_in_a_yaml_is_refused_too(files: list[AdapterFile], workspace: Workspace, cli: Cli) -> None:
    (workspace.root / "m.yaml").write_text("method: magnitude_prune\nrank_out: cat\nadapters: [a, b]\n")
    one_line(cli("merge", "--config", "m.yaml", "--name", "m"), 2, "cat", "magnitude_prune")
