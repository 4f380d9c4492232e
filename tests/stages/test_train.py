"""`train` and `infer` on small made-up domains: results, resumption, and what goes wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import write_domain_tables
from safetensors.numpy import load_file, save_file

from recmerge.cli.main import main

QUICK = [
    "--set",
    "steps=6",
    "--set",
    "save_every=2",
    "--set",
    "batch_size=8",
    "--set",
    "micro_batch_size=4",
    *("--set", "prompt.max_length=128", "--set", "prompt.max_title_tokens=null"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two domains and their hybrid."""
    folder = tmp_path_factory.mktemp("train")
    for name in ("sports", "beauty"):
        config = write_domain_tables(folder / "tables", name)
        assert main(["data", "build", name, "--config", str(config), "--workspace", str(folder), "--quiet"]) == 0
    assert main(["data", "mix", "sports", "beauty", "--workspace", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECMERGE_WORKSPACE", str(root))
    return root


@pytest.fixture(scope="module")
def trained(root: Path, tiny_base: Path) -> Path:
    """A straight run's folder, trained by a process of its own."""
    done = run_process(root, tiny_base, "straight")
    assert done.returncode == 0, done.stderr
    return root / "runs/train/straight/v001"


def words(base: Path, name: str, *more: str, data: str = "sports_beauty") -> list[str]:
    return ["train", data, "--base", str(base), "--name", name, *QUICK, *more]


def start(root: Path, base: Path, name: str, *more: str, data: str = "sports_beauty") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recmerge", *words(base, name, *more, data=data)]
    return subprocess.Popen(command, env={**os.environ, "RECMERGE_WORKSPACE": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_process(root: Path, base: Path, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    process = start(root, base, name, *more)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")


def adapter_bytes(run: Path) -> bytes:
    return (run / "adapter/adapter_model.safetensors").read_bytes()


def test_writes_an_adapter_in_peft_format_a_curve_and_counts(trained: Path) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    config = json.loads((trained / "adapter/adapter_config.json").read_text())
    card = json.loads((trained / "adapter/recmerge.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (64, 128, 0.05)
    assert set(config["target_modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert manifest["facts"]["domains"] == ["beauty", "sports"] == card["domains"]
    counts = manifest["facts"]["counts"]
    assert counts["rows"] == counts["rows_trained"] + counts["rows_dropped"] > 0
    steps = [json.loads(line) for line in (trained / "loss.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(s["loss"]) for s in steps)
    assert not (trained / "checkpoints").exists()
    tensors = load_file(trained / "adapter/adapter_model.safetensors")
    assert any(np.abs(v).max() > 0 for k, v in tensors.items() if "lora_B" in k)


def test_killed_and_resumed_equals_the_straight_run(root: Path, tiny_base: Path, trained: Path) -> None:
    process = start(root, tiny_base, "killed")
    wait_for(root / "runs/train/killed/v001/checkpoints/checkpoint-2/complete.json", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (root / "runs/train/killed/v001/manifest.json").exists()
    done = run_process(root, tiny_base, "killed", "--resume")
    assert done.returncode == 0, done.stderr
    resumed = root / "runs/train/killed/v001"
    assert adapter_bytes(resumed) == adapter_bytes(trained)
    assert (resumed / "loss.jsonl").read_text() == (trained / "loss.jsonl").read_text()
    assert json.loads((resumed / "manifest.json").read_text())["facts"]["resumed_from"] >= 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_resume(root: Path, tiny_base: Path, trained: Path, signum: signal.Signals) -> None:
    name = f"stopped-{signum.name}"
    process = start(root, tiny_base, name, "--set", "steps=2000")
    wait_for(root / f"runs/train/{name}/v001/checkpoints/checkpoint-2/complete.json", process)
    process.send_signal(signum)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signum
    last = err.strip().splitlines()[-1]
    assert last.startswith("error[INTERRUPTED]: training stopped at step")
    assert "--resume" in last
    folder = root / "runs/train" / name / "v001"
    assert json.loads((folder / "failure.json").read_text())["state"] == "interrupted"
    assert not (folder / "manifest.json").exists()


def test_resume_with_other_settings_is_refused_with_the_difference(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    folder = here / "runs/train/changed/v001"
    code, _, _ = cli(*words(tiny_base, "changed"))
    assert code == 0
    (folder / "manifest.json").unlink()  # as if it had been killed before the end
    code, out, err = cli(*words(tiny_base, "changed", "--resume", "--set", "learning_rate=0.5"))
    assert (code, out) == (7, "")
    assert err.strip().count("\n") == 0
    assert "learning_rate: 0.005 -> 0.5" in err


def test_all_checkpoints_damaged_is_one_clear_error(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    more = ("--set", "keep_checkpoints=true")
    assert cli(*words(tiny_base, "torn", *more))[0] == 0
    folder = here / "runs/train/torn/v001"
    (folder / "manifest.json").unlink()
    newest, older = folder / "checkpoints/checkpoint-6", folder / "checkpoints/checkpoint-4"
    (newest / "optimizer.pt").write_bytes(b"torn")
    code, _, err = cli(*words(tiny_base, "torn", "--resume", *more))
    assert code == 0
    assert "checkpoint-6 is torn or damaged: going on from checkpoint-4" in err
    assert adapter_bytes(folder) == adapter_bytes(trained)
    (folder / "manifest.json").unlink()
    for path in (newest, older):
        (path / "adapter_model.safetensors").write_bytes(b"torn")
    code, _, err = cli(*words(tiny_base, "torn", "--resume", *more))
    assert code == 4
    assert err.strip().splitlines()[-1].startswith("error[ARTIFACT]: all checkpoints")


def test_two_writers_of_one_run(root: Path, tiny_base: Path, here: Path, cli) -> None:
    process = start(root, tiny_base, "twice", "--set", "steps=500")
    try:
        wait_for(root / "runs/train/twice/v001/checkpoints/checkpoint-2", process)
        code, out, err = cli(*words(tiny_base, "twice", "--set", "steps=500"))
        assert (code, out) == (7, "")
        assert f"process {process.pid}" in err
        assert cli(*words(tiny_base, "twice", "--set", "steps=500", "--resume"))[0] == 7
    finally:
        process.kill()
        process.communicate()
    assert cli(*words(tiny_base, "twice", "--set", "steps=500", "--resume", "--set", "steps=1"))[0] == 7  # unlocked now, but other settings


def test_a_gpu_that_is_not_there(here: Path, tiny_base: Path, cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, out, err = cli(*words(tiny_base, "gpu", "--device", "cuda"))
    assert (code, out) == (5, "")
    assert err.startswith("error[RESOURCE]: device 'cuda'")
    assert err.count("\n") == 1


def test_a_loss_of_nan_stops_training(here: Path, tiny_base: Path, cli, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    sick.mkdir()
    for path in tiny_base.iterdir():
        (sick / path.name).write_bytes(path.read_bytes())
    tensors = load_file(sick / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, sick / "model.safetensors", metadata={"format": "pt"})
    code, out, err = cli(*words(sick, "sick"))
    assert (code, out) == (8, "")
    assert "the loss is nan at step 1" in err.strip().splitlines()[-1]
    assert json.loads((here / "runs/train/sick/v001/failure.json").read_text())["exit_code"] == 8


def test_prompts_that_never_fit(here: Path, tiny_base: Path, cli) -> None:
    code, out, err = cli(*words(tiny_base, "short", "--set", "prompt.style=listwise"))
    assert (code, out) == (3, "")
    assert "fits into max_length 128 tokens" in err
    assert err.count("\n") == 1


def test_a_base_that_wants_to_run_code(here: Path, tiny_base: Path, cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in tiny_base.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (bad / "evil.py").write_text("open('ran', 'w')\n")
    code, out, err = cli(*words(bad, "bad"))
    assert (code, out) == (4, "")
    assert "code of its own" in err
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["../../x", "/abs", "a\0b", "x" * 300, "", ".."])
def test_run_names_that_leave_their_folder(here: Path, tiny_base: Path, cli, name: str) -> None:
    code, out, err = cli(*words(tiny_base, name))
    assert (code, out) == (2, "")
    assert err.startswith("error[USAGE]")
    assert err.count("\n") == 1


def test_already_done_is_returned_at_once(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    code, out, _ = cli(*words(tiny_base, "straight", "--json"))
    document = json.loads(out)
    assert code == 0
    assert (document["version"], document["already_done"]) == ("v001", True)
    other_spelling = [w if w != "sports_beauty" else "beauty_sports" for w in words(tiny_base, "straight", "--json")]
    assert json.loads(cli(*other_spelling)[1])["already_done"] is True


def test_infer_scores_equal_full_sequences_and_ranks_follow(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    code, out, _ = cli("infer", "sports", "--adapter", "straight", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["facts"]["scoring"]["method"] == "packed"
    frame = pl.read_parquet(Path(document["run_dir"]) / "rankings.parquet")
    assert frame.columns == ["user_id", "item_id", "score", "rank", "is_target"]
    per_user = frame.group_by("user_id").agg(pl.len(), pl.col("is_target").sum(), pl.col("rank").min(), pl.col("score").n_unique())
    assert set(per_user["len"]) == {30}
    assert set(per_user["is_target"]) == {1}
    assert set(per_user["rank"]) == {1}
    user = frame["user_id"][0]
    mine = frame.filter(pl.col("user_id") == user)
    by_hand = score_by_hand(here, tiny_base, trained, user, mine["item_id"].to_list())
    np.testing.assert_allclose(mine["score"].to_numpy(), by_hand, atol=1e-4)
    by_score = mine.sort("score", descending=True)
    assert by_score["rank"].to_list() == sorted(by_score["rank"].to_list())


def score_by_hand(root: Path, base: Path, run: Path, user: str, items: list[str]) -> list[float]:
    """Full sequences, one at a time, through plain peft and transformers, from the data files."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = root / "data/processed/sports/v001"
    titles = dict(pl.read_parquet(data / "items.parquet").select("item_id", "title").iter_rows())
    events = pl.read_parquet(data / "events.parquet").filter((pl.col("user_id") == user) & (pl.col("split") != "test")).sort("position")
    tok = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), run / "adapter").eval()

    def encode(item: str) -> list[int]:
        return [*tok(titles[item], add_special_tokens=False)["input_ids"], tok.eos_token_id]

    prompts = [encode(i) for i in events["item_id"]][-10:]  # max_history of configs/train/nano.yaml
    longest = max(len(encode(i)) for i in items)
    while 1 + sum(map(len, prompts)) + longest > 128:
        prompts = prompts[1:]
    prompt = [tok.pad_token_id, *(t for p in prompts for t in p)]
    scores = []
    for item in items:
        answer = encode(item)
        with torch.inference_mode():
            logs = torch.log_softmax(model(input_ids=torch.tensor([prompt + answer])).logits[0].double(), -1)
        scores.append(float(sum(logs[len(prompt) - 1 + k, token] for k, token in enumerate(answer))))
    return scores


def test_infer_of_the_base_alone(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    code, out, _ = cli("infer", "sports", "--adapter", "none", "--base", tiny_base, "--json")
    assert code == 0
    assert json.loads(out)["facts"]["label"] == "zero-shot"


def copy_adapter(trained: Path, to: Path) -> Path:
    to.mkdir()
    for path in (trained / "adapter").iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def change_base(tiny_base: Path, to: Path) -> Path:
    to.mkdir()
    for path in tiny_base.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    tensors = load_file(to / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_an_adapter_on_another_base_of_the_same_shape_is_refused(here: Path, tiny_base: Path, cli, trained: Path, tmp_path: Path) -> None:
    code, out, err = cli("infer", "sports", "--adapter", "straight", "--base", change_base(tiny_base, tmp_path / "other"))
    assert (code, out) == (4, "")
    assert "was trained on another base" in err


def test_a_plain_adapter_folder_ranks_like_its_run(here: Path, tiny_base: Path, cli, trained: Path, tmp_path: Path) -> None:
    folder = copy_adapter(trained, tmp_path / "copy")
    runs = [json.loads(cli("infer", "sports", "--adapter", a, "--users", "5", "--json")[1])["run_dir"] for a in ("straight", folder)]
    one, two = (pl.read_parquet(Path(r) / "rankings.parquet") for r in runs)
    assert one.equals(two)


def test_an_adapter_part_without_a_place_is_refused(here: Path, tiny_base: Path, cli, trained: Path, tmp_path: Path) -> None:
    folder = copy_adapter(trained, tmp_path / "extra")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(k for k in tensors if "layers.1" in k)
    tensors[key.replace("layers.1", "layers.7")] = tensors[key]
    save_file(tensors, path, metadata={"format": "pt"})
    code, out, err = cli("infer", "sports", "--adapter", folder)
    assert (code, out) == (4, "")
    assert "1 of the 29 tensors" in err or "have no place in this base" in err


def test_a_pickled_adapter_is_not_read(here: Path, tiny_base: Path, cli, trained: Path, tmp_path: Path) -> None:
    folder = copy_adapter(trained, tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    code, out, err = cli("infer", "sports", "--adapter", folder)
    assert (code, out) == (4, "")
    assert "pickled" in err


def test_a_changed_adapter_of_a_run_is_refused(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    assert cli(*words(tiny_base, "flipped"))[0] == 0
    path = here / "runs/train/flipped/v001/adapter/adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    code, out, err = cli("infer", "sports", "--adapter", "flipped")
    assert (code, out) == (4, "")
    assert "sha256 differs" in err


def test_generate_counts_what_is_off_and_drops_nobody(here: Path, tiny_base: Path, cli, trained: Path) -> None:
    code, out, _ = cli("infer", "sports", "--adapter", "straight", "--mode", "generate", "--set", "max_new_tokens=12", "--users", "9", "--json")
    assert code == 0
    document = json.loads(out)
    folder = Path(document["run_dir"])
    frame = pl.read_parquet(folder / "rankings.parquet")
    assert frame["user_id"].n_unique() == 9
    assert frame.height == 9 * 30
    written = pl.read_parquet(folder / "generations.parquet")
    assert written.height == 9
    named = frame.filter(pl.col("rank").is_not_null())
    assert document["facts"]["malformed"] == int(written["malformed"].sum())
    assert document["facts"]["off_list"] == int((written["off_list"] > 0).sum())
    assert (named["score"] == 1 / named["rank"]).all()
    assert frame.filter(pl.col("rank").is_null())["score"].null_count() == frame.height - named.height


def test_missing_data_names_the_commands_that_make_it(here: Path, tiny_base: Path, cli) -> None:
    code, out, err = cli("train", "garden_sports", "--base", tiny_base)
    assert (code, out) == (4, "")
    assert "recmerge data build garden sports" in err
    assert "recmerge data mix garden sports" in err


def test_a_ranker_is_trained_and_used(here: Path, cli) -> None:
    code, out, err = cli("train", "sports", "--ranker", "popularity", "--json")
    assert code == 0, err
    assert json.loads(out)["name"] == "sports-popularity"
    code, out, err = cli("infer", "sports", "--ranker", "popularity", "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["run_dir"])
    assert "ranker" in {i["role"] for i in json.loads((folder / "manifest.json").read_text())["inputs"]}
    counts = pl.read_parquet(here / "data/processed/sports/v001/events.parquet").filter(pl.col("split") == "train")["item_id"].value_counts()
    by_item = dict(counts.iter_rows())
    frame = pl.read_parquet(folder / "rankings.parquet")
    for _, rows in frame.head(90).group_by("user_id"):
        popular = rows.sort("rank")["item_id"].to_list()
        assert by_item.get(popular[0], 0) == max(by_item.get(i, 0) for i in popular)


def test_unknown_ranker_names_the_nearest(here: Path, cli) -> None:
    code, out, err = cli("infer", "sports", "--ranker", "popularty")
    assert (code, out) == (2, "")
    assert "did you mean 'popularity'?" in err
