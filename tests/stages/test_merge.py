"""`recmerge merge` from end to end: exactness, run directories, and every fault with its exit code and one line."""

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from recmerge.config.loader import find_config, load, shipped_names
from recmerge.config.merge import MergeConfig
from recmerge.lm.adapter_file import AdapterFile
from recmerge.lm.tensor_file import TensorFile
from recmerge.merging import METHODS
from recmerge.runs import RunSpec, Workspace, open_run
from tests.merging.tiny import Q, V, peft_adapters, peft_deltas, random_lora, tiny_qwen2, write_lora

Cli = Callable[..., tuple[int, str, str]]
WEIGHTS = "adapter_model.safetensors"


def trained(workspace: Workspace, name: str, domains: Sequence[str], seed: int = 0, **more: Any) -> Path:
    """Make a complete train run that holds a random adapter; returns its folder."""
    with open_run(workspace, RunSpec("train", name, {"seed": seed}, (), "test")) as run:
        card = {"base": {"ref": "nano", "revision": None, "fingerprint": "f"}, "tokenizer_sha256": "t", "lora_init_sha256": "i", "domains": list(domains)}
        random_lora(run.path / "adapter", seed, card={**card, "prompt": {"style": "open", "max_length": 64}}, **more)
        run.facts.update(kind="adapter", domains=list(domains))
    return run.path


def one_line(result: tuple[int, str, str], code: int, *words: str) -> str:
    got, out, err = result
    assert got == code, err
    lines = [line for line in err.splitlines() if line.startswith("error[")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert "fix: " in lines[0]
    assert out == ""
    for word in words:
        assert word in lines[0]
    return lines[0]


def dense(folder: Path, module: str) -> np.ndarray:
    adapter = AdapterFile(folder)
    b, a = adapter.factors(module)
    return adapter.scaling(module) * b @ a


def timeless_report(folder: Path) -> dict[str, Any]:
    """Read a merge report without the one entry that is a measured time."""
    report = json.loads((folder / "merge_report.json").read_text())
    assert set(report["inference"].pop("latency")) == {"out", "in", "rank", "tokens", "base_ms", "merged_ms"}
    return report


@pytest.fixture
def pair(workspace: Workspace) -> tuple[Path, Path]:
    return random_lora(workspace.root / "a", 1, rank=2, lora_alpha=4), random_lora(workspace.root / "b", 2, rank=3, lora_alpha=3, use_rslora=True)


# --- exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "weights"), [(1, [1.0]), (2, [0.7, -0.3]), (3, None), (4, [0.1, -1.2, 2.0, 0.5])])
def test_plain_peft_adds_the_exact_sum(workspace: Workspace, cli: Cli, n: int, weights: list[float] | None) -> None:
    base = workspace.root / "base"
    tiny_qwen2().save_pretrained(base)
    settings = [
        {"r": 2, "lora_alpha": 4},
        {"r": 5, "lora_alpha": 3, "use_rslora": True},
        {"r": 4, "lora_alpha": 1, "target_modules": ["q_proj", "up_proj"], "rank_pattern": {"up_proj": 3}, "alpha_pattern": {"layers.1.mlp.up_proj": 7}},
        {"r": 1, "lora_alpha": 2, "target_modules": r".*layers\.0.*\.(q|k)_proj"},
    ]
    paths = peft_adapters(workspace.root, base, settings[:n])
    words = ["--weights", ",".join(map(str, weights))] if weights else []
    code, _out, err = cli("merge", "--adapters", ",".join(map(str, paths)), *words, "--name", "m", "--out", "merged")
    assert code == 0, err
    merged, parts = peft_deltas(base, workspace.root / "merged"), [peft_deltas(base, p) for p in paths]
    assert set(merged) == {m for p in parts for m in p}
    for module, found in merged.items():
        expected = sum(w * p.get(module, np.zeros_like(found)) for w, p in zip(weights or [1 / n] * n, parts, strict=True))
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    report = json.loads((workspace.root / "runs/merge/m/v001/merge_report.json").read_text())
    assert report["summary"]["max_relative_error"] <= 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_loadable_adapter(workspace: Workspace, cli: Cli, method: str) -> None:
    random_lora(workspace.root / "a", 1)
    random_lora(workspace.root / "b", 2)
    code, out, err = cli("merge", "--adapters", "a,b", "--method", method, "--name", "m", "--json")
    assert code == 0, err
    run = Path(json.loads(out)["run_dir"])
    AdapterFile(run / "adapter").verify()
    report = json.loads((run / "merge_report.json").read_text())
    assert (report["method"], report["weights"]) == (method, [1.0, 1.0] if METHODS[method].unit_weights else [0.5, 0.5])
    assert report["rank_out"] == ("svd:2" if METHODS[method].full_rank else "cat")
    assert report["summary"]["max_relative_error"] <= 1e-6


def test_svd_rank_and_bfloat16(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    assert cli("merge", "--adapters", "a,b", "--rank-out", "svd:2", "--name", "s")[0] == 0
    folder = workspace.root / "runs/merge/s/v001"
    exact = 0.5 * dense(pair[0], Q) + 0.5 * dense(pair[1], Q)
    s = np.linalg.svd(exact, compute_uv=False)
    assert np.linalg.norm(dense(folder / "adapter", Q) - exact) == pytest.approx(math.sqrt((s[2:] ** 2).sum()), rel=1e-5)
    report = json.loads((folder / "merge_report.json").read_text())
    assert report["modules"][Q]["energy_lost"] == pytest.approx((s[2:] ** 2).sum() / (s**2).sum())
    assert cli("merge", "--adapters", "a,b", "--dtype", "bfloat16", "--name", "h")[0] == 0
    half = workspace.root / "runs/merge/h/v001/adapter"
    assert np.linalg.norm(dense(half, Q) - exact) < 0.01 * np.linalg.norm(exact)
    assert {t.dtype for t in TensorFile(half / WEIGHTS).tensors.values()} == {"BF16"}


def test_fold_writes_a_model_that_loads(workspace: Workspace, cli: Cli) -> None:
    from transformers import AutoModelForCausalLM

    base = workspace.root / "base"
    tiny_qwen2().save_pretrained(base)
    paths = peft_adapters(workspace.root, base, [{"r": 2}, {"r": 3}])
    code, out, err = cli("merge", "--adapters", ",".join(map(str, paths)), "--rank-out", "fold", "--name", "m", "--out", "whole", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["facts"]["kind"] == "model"
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for folder in (Path(answer["run_dir"]) / "model", workspace.root / "whole"):
        after = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        module = "model.layers.1.mlp.down_proj"
        change = (after[f"{module}.weight"].double() - before[f"{module}.weight"].double()).numpy()
        np.testing.assert_allclose(change, 0.5 * dense(paths[0], module) + 0.5 * dense(paths[1], module), atol=1e-7)
    assert answer["facts"]["added_parameters"] == 0


# --- run directories ---------------------------------------------------------------------------


def test_target_and_sources_find_the_hybrids_in_either_order(workspace: Workspace, cli: Cli) -> None:
    for i, (name, domains) in enumerate({"sports": ["sports"], "beauty_sports": ["beauty", "sports"], "sports_toys": ["sports", "toys"]}.items()):
        trained(workspace, name, domains, seed=i)
    code, out, err = cli("merge", "--target", "sports", "--sources", "toys,beauty", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["run_dir"].endswith("runs/merge/sports-weaverec/v001")
    facts = answer["facts"]
    assert (facts["kind"], facts["domains"], facts["weights"]) == ("adapter", ["sports"], [1 / 3] * 3)
    assert facts["merged_from"] == ["sports@v001", "sports_toys@v001", "beauty_sports@v001"]
    card = json.loads((Path(answer["run_dir"]) / "adapter/recmerge.json").read_text())
    assert card["prompt"] == {"style": "open", "max_length": 64}
    assert card["base"]["fingerprint"] == "f"
    assert [m["label"] for m in card["merged_from"]] == facts["merged_from"]
    code, _, err = cli("merge", "--target", "sports", "--sources", "toys,beauty")
    assert code == 0
    assert "already done: v001" in err
    assert err.rstrip().endswith("recmerge infer sports --adapter sports-weaverec")
    assert cli("merge", "--adapters", "sports@v001,train/sports_beauty", "--name", "two")[0] == 0
    assert cli("merge", "--adapters", "two,runs/train/sports_toys/v001,runs/train/sports/v001/adapter", "--name", "three")[0] == 0
    manifest = json.loads((workspace.root / "runs/merge/three/v001/manifest.json").read_text())
    assert [i["version"] for i in manifest["inputs"]] == ["v001"] * 3
    assert manifest["facts"]["domains"] == ["beauty", "sports", "toys"]


def test_all_missing_adapters_are_named_with_their_commands(workspace: Workspace, cli: Cli) -> None:
    trained(workspace, "sports_toys", ["sports", "toys"])
    with open_run(workspace, RunSpec("mix", "food_sports", {}, (), "test")) as run:
        run.facts.update(kind="hybrid", domains=["food", "sports"])
    line = one_line(
        cli("merge", "--target", "sports", "--sources", "toys,beauty,food"),
        4,
        "3 of 4 adapters are missing: sports, beauty_sports, food_sports",
        "recmerge train sports && recmerge data mix sports beauty && recmerge train beauty_sports && recmerge train food_sports",
    )
    assert "sports_toys" not in line
    assert "mix sports food" not in line
    assert not (workspace.root / "runs/merge").exists()


def test_two_merges_of_the_same_adapters_hold_the_same_bytes(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    for name in ("one", "two"):
        assert cli("merge", "--adapters", "a,b", "--rank-out", "svd:3", "--name", name)[0] == 0
    one, two = (workspace.root / f"runs/merge/{n}/v001" for n in ("one", "two"))
    for path in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/recmerge.json"):
        assert (one / path).read_bytes() == (two / path).read_bytes()
    assert timeless_report(one) == timeless_report(two)
    assert cli("merge", "--adapters", "a,b", "--rank-out", "svd:3", "--name", "one", "--again")[0] == 0
    contents = [json.loads((run / "manifest.json").read_text())["content_sha256"] for run in (one, one.with_name("v002"))]
    assert contents[0] == contents[1]  # though the reports hold two times: what is made of either is the same


def test_check_reports_and_merges_nothing(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    words = ["merge", "--adapters", "a,b", "--rank-out", "svd:1"]
    code, out, _ = cli(*words, "--check", "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["modules"][Q]["energy_lost"] > 0
    folder = Path(answer["run_dir"])
    assert folder.parent == workspace.root / "runs/check"
    assert [Path(o["path"]).name for o in answer["outputs"]] == ["merge_report.json", "merge_report.html"]
    report = json.loads((folder / "merge_report.json").read_text())
    assert report == {k: answer[k] for k in report}
    assert sorted(p.name for p in (workspace.root / "runs").iterdir()) == ["check"]
    assert "Energy lost to truncation" in (folder / "merge_report.html").read_text()
    code, out, _ = cli(*words, "--check", "--name", "look")
    assert Q in out
    assert str(workspace.root / "runs/check/look/merge_report.html") in out
    assert json.loads(cli("runs", "list", "--json")[1])["runs"] == []  # it is no run
    assert cli(*words, "--name", "m")[0] == 0
    merged = timeless_report(workspace.root / "runs/merge/m/v001")
    checked = timeless_report(workspace.root / "runs/check/look")
    for row in merged["modules"].values():
        del row["relative_error"]  # what only writing shows
    assert merged["modules"] == checked["modules"]
    assert merged["summary"]["cosine"] == checked["summary"]["cosine"]


def test_check_writes_where_it_is_told(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    words = ["merge", "--adapters", "a,b", "--check"]
    assert cli(*words, "--out", "here")[0] == 0
    assert sorted(p.name for p in (workspace.root / "here").iterdir()) == ["merge_report.html", "merge_report.json"]
    one_line(cli(*words, "--out", "here"), 7, "here exists", "--force")
    assert cli(*words, "--out", "here", "--force")[0] == 0
    before = sorted(workspace.root.rglob("*"))
    assert cli(*words, "--dry-run")[0] == 0
    assert sorted(workspace.root.rglob("*")) == before


def test_dry_run_writes_nothing(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    code, out, _ = cli("merge", "--adapters", "a,b", "--name", "m", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["config"]["weights"] == [0.5, 0.5]
    assert not (workspace.root / "runs").exists()


def test_list_methods(cli: Cli) -> None:
    assert json.loads(cli("merge", "--list-methods", "--json")[1]) == {"methods": sorted(METHODS)}
    assert [line.split()[0] for line in cli("merge", "--list-methods")[1].splitlines()] == sorted(METHODS)


def test_every_shipped_config_loads_and_names_its_method() -> None:
    assert set(shipped_names("merge")) == set(METHODS)
    for name in shipped_names("merge"):
        assert load(MergeConfig, "merge", name, {}).method == name
        assert "#" in find_config("merge", name).read_text()


def test_paths_in_a_yaml_are_read_from_its_own_folder(workspace: Workspace, cli: Cli) -> None:
    folder = workspace.root / "elsewhere"
    random_lora(folder / "sub/a", 1)
    random_lora(folder / "sub/b", 2)
    (folder / "m.yaml").write_text(yaml.safe_dump({"adapters": ["sub/a", "sub/b"], "weights": [1, 0]}))
    assert cli("merge", "--config", "elsewhere/m.yaml", "--name", "m")[0] == 0
    np.testing.assert_allclose(dense(workspace.root / "runs/merge/m/v001/adapter", V), dense(folder / "sub/a", V), rtol=1e-6)


def test_adapters_are_merged_without_torch_and_data_frames(pair: tuple[Path, Path], workspace: Workspace) -> None:
    loaded = "sorted({'torch', 'numpy', 'polars', 'safetensors'} & set(sys.modules))"
    code = f"import sys; from recmerge.cli.main import main; code = main(sys.argv[1:]); print(code, {loaded})"

    def last_line(*words: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=workspace.root)
        return done.stdout.splitlines()[-1]

    assert last_line("merge", "--help") == "0 []"
    assert last_line("merge", "--adapters", "a,b", "--rank-out", "svd:2", "--name", "m") == "0 ['numpy', 'safetensors']"


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["0.5", "0.2,0.3,0.5", "nan,1", "1,inf", "0.5,", "", "half,half", "1_0,2"])
def test_f4_bad_weights(workspace: Workspace, cli: Cli, weights: str) -> None:
    one_line(cli("merge", "--adapters", "missing1,missing2", "--weights", weights, "--name", "m"), 2)  # 2, not 4: nothing was looked for


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--adapters", ""],
        ["--adapters", "a,,b"],
        ["--adapters", "a,b"],  # no name
        ["--adapters", "a", "--target", "b", "--sources", "c", "--name", "m"],
        ["--target", "sports"],
        ["--sources", "beauty"],
        ["--target", "sports", "--sources", "sports"],
        ["--target", "../x", "--sources", "y"],
        ["--adapters", "a,b", "--name", "../../x"],
        ["--adapters", "a,b", "--name", "m", "--method", "producto"],
        ["--adapters", "a,b", "--name", "m", "--rank-out", "svd:0"],
        ["--adapters", "a,b", "--name", "m", "--dtype", "int8"],
        ["--adapters", "a,b", "--name", "m", "--force"],
    ],
)
def test_wrong_usage(pair: tuple[Path, Path], workspace: Workspace, cli: Cli, words: list[str]) -> None:
    one_line(cli("merge", *words), 2)
    assert not (workspace.root / "runs").exists()


def test_f5_other_bases(workspace: Workspace, cli: Cli) -> None:
    random_lora(workspace.root / "a", 1)
    random_lora(workspace.root / "b", 2, base_model_name_or_path="other/base")
    words = ["merge", "--adapters", "a,b", "--name", "m"]
    one_line(cli(*words), 4, "some/base", "other/base", "--allow-base-mismatch")
    code, out, _ = cli(*words, "--allow-base-mismatch", "--json")
    assert code == 0
    assert "other/base" in json.loads(out)["facts"]["base_mismatch"][0]


def test_f6_other_ranks(pair: tuple[Path, Path], workspace: Workspace, cli: Cli) -> None:
    one_line(cli("merge", "--adapters", "a,b", "--name", "m", "--method", "factor"), 4, Q, "rank", "2, 3")
    assert cli("merge", "--adapters", "a,b", "--name", "m")[0] == 0


@pytest.mark.parametrize("extra", [{"use_dora": True}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}])
def test_f7_more_than_lora(workspace: Workspace, cli: Cli, extra: dict[str, Any]) -> None:
    random_lora(workspace.root / "a", 1, **extra)
    random_lora(workspace.root / "b", 2)
    one_line(cli("merge", "--adapters", "b,a", "--name", "m"), 4, next(iter(extra)))


def test_f8_an_existing_output_stays(pair: tuple[Path, Path], workspace: Workspace, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["merge", "--adapters", "a,b", "--name", "m", "--out", "out"]
    assert cli(*words)[0] == 0
    old = (workspace.root / "out" / WEIGHTS).read_bytes()
    words += ["--weights", "1,0"]
    one_line(cli(*words), 7, "out exists", "--force")
    assert (workspace.root / "out" / WEIGHTS).read_bytes() == old
    assert not (workspace.root / "runs/merge/m/v002").exists()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("recmerge.stages.publish.shutil.copytree", full)
        assert cli(*words, "--force")[0] == 5
    assert (workspace.root / "out" / WEIGHTS).read_bytes() == old
    assert cli(*words, "--force")[0] == 0
    assert (workspace.root / "out" / WEIGHTS).read_bytes() != old
    assert sorted(p.name for p in workspace.root.iterdir()) == ["a", "b", "out", "runs"]
    (workspace.root / "mine").mkdir()
    (workspace.root / "mine/thesis.txt").write_text("years of work")
    one_line(cli(*words[:-4], "--out", "mine", "--force"), 7, "mine")
    assert (workspace.root / "mine/thesis.txt").exists()


def test_f9_a_wrong_result_is_not_published(pair: tuple[Path, Path], workspace: Workspace, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from recmerge.lm import adapter_write

    monkeypatch.setattr(adapter_write, "narrow", lambda values, dtype: (values * 1.001).astype(np.float32))
    one_line(cli("merge", "--adapters", "a,b", "--name", "m", "--out", "out"), 4, Q)
    folder = workspace.root / "runs/merge/m/v001"
    assert (folder / "adapter.failed" / WEIGHTS).exists()
    assert not (folder / "adapter").exists()
    assert not (folder / "manifest.json").exists()
    assert (folder / "failure.json").exists()
    assert not (workspace.root / "out").exists()


def test_f10_truncated_or_changed(workspace: Workspace, cli: Cli) -> None:
    run = trained(workspace, "sports", ["sports"])
    random_lora(workspace.root / "b", 2, base_model_name_or_path="some/base")
    path = run / "adapter" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-2] ^= 1  # one bit of one number
    path.write_bytes(data)
    assert load_file(path)
    one_line(cli("merge", "--adapters", "sports,b", "--name", "m"), 4, WEIGHTS, "was changed")
    path.write_bytes(data[:-9])
    one_line(cli("merge", "--adapters", "sports,b", "--name", "m"), 4, WEIGHTS, "truncated")


def test_f11_nan(workspace: Workspace, cli: Cli) -> None:
    write_lora(workspace.root / "a", {Q: ([[1.0], [math.nan]], [[1.0, 2.0]])})
    one_line(cli("merge", "--adapters", "a", "--name", "m"), 4, f"{Q}.lora_B.weight")


class Bomb:
    """Writes a file when unpickled."""

    def __reduce__(self) -> object:
        return (Path.write_text, (Path("payload"), "ran"))


def test_f12_pickle(workspace: Workspace, cli: Cli) -> None:
    folder = random_lora(workspace.root / "a", 1)
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    one_line(cli("merge", "--adapters", "a", "--name", "m"), 4, "adapter_model.bin")
    assert not (workspace.root / "payload").exists()


def test_f13_modules_that_the_base_lacks(workspace: Workspace, cli: Cli) -> None:
    base = workspace.root / "base"
    tiny_qwen2().save_pretrained(base)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(7)]
    random_lora(workspace.root / "a", 1, modules=names, out=32, width=32, base_model_name_or_path=str(base))
    line = one_line(cli("merge", "--adapters", "a", "--rank-out", "fold", "--name", "m"), 4, "5 of 7 modules", names[2], names[3], names[4])
    assert names[5] not in line
    assert not (workspace.root / "runs").exists()


def test_missing_adapters_and_other_runs(workspace: Workspace, cli: Cli) -> None:
    one_line(cli("merge", "--adapters", "nowhere", "--name", "m"), 4, "nowhere")
    one_line(cli("merge", "--adapters", "./no/where", "--name", "m"), 4, "no/where")
    (workspace.root / "empty").mkdir()
    one_line(cli("merge", "--adapters", "./empty", "--name", "m"), 4, "adapter_config.json")
    with open_run(workspace, RunSpec("train", "ranker", {}, (), "test")) as run:
        run.facts.update(kind="ranker", domains=["sports"])
    one_line(cli("merge", "--adapters", str(run.path), "--name", "m"), 4, "ranker, not an adapter")
    random_lora(workspace.root / "a", 1)
    one_line(cli("merge", "--adapters", "a", "--rank-out", "fold", "--name", "m"), 4, "some/base", "--base")


def test_a_merge_of_another_base_than_folded_into_is_refused(workspace: Workspace, cli: Cli) -> None:
    base = workspace.root / "base"
    tiny_qwen2().save_pretrained(base)
    card = {"base": {"ref": str(base), "revision": None, "fingerprint": "another"}}
    random_lora(workspace.root / "a", 1, modules=["model.layers.0.self_attn.q_proj"], out=32, width=32, card=card, base_model_name_or_path=str(base))
    words = ["merge", "--adapters", "a", "--rank-out", "fold", "--name", "m"]
    one_line(cli(*words), 4, "not the one")
    assert cli(*words, "--allow-base-mismatch")[0] == 0
