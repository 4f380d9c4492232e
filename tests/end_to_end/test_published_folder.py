"""The published authors' folder, testdata/ and save/, goes straight into build, merge, infer and eval: nothing is trained."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from safetensors.numpy import load_file

from recmerge.data.dataset import examples, read_domain
from recmerge.data.prompts import PUBLISHED_WORDING, Wording
from recmerge.runs import Workspace
from tests.conftest import Cli

WORDS = Wording("You help.", "Bought by one customer:[", "]. Name five for the next purchase, the best first.Candidates: [", "]. The five are:")


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.mark,)


def run(cli: Cli, *words: object) -> dict:
    code, out, err = cli(*words, "--json")
    assert code == 0, f"{words}: {err}"
    return json.loads(out)


def write_testdata(domain_folder: Path, path: Path, words: Wording = WORDS) -> None:
    """Write the test questions of a built domain as the published code does: chat messages with titles, a line a user."""
    domain = read_domain(domain_folder)
    lines = []
    for e in examples(domain, "test"):
        history, listed, target = [domain.titles[i] for i in e.history], [domain.titles[i] for i in e.candidates], domain.titles[e.target]
        user = f"{words.before}{'||'.join(history)}{words.between}{'||'.join(listed)}{words.after}"
        answer = "||".join([target, *[title for title in listed if title != target][:4]])
        turns = (("system", words.system), ("user", user), ("assistant", answer))
        lines.append(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_checkpoint(folder: Path, base: Path, seed: int, mark: Path) -> Path:
    """Write a checkpoint as LLaMA-Factory's trainer leaves it: an adapter by peft, and around it files that are pickles or none of ours."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    torch.manual_seed(seed)
    for name, tensor in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(tensor, std=0.3)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "models/Qwen2-7B-Instruct"}))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "global_step1000/mp_rank_00_model_states.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1000, "best_metric": 0.5, "log_history": []}))
    (folder / "latest").write_text("global_step1000")
    (folder / "zero_to_fp32.py").write_text("raise SystemExit('not to be run')\n")
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    return folder


@pytest.fixture
def authors(workspace: Workspace, cli: Cli, table_domain: Callable[..., Path], tiny_base: Path, tmp_path: Path) -> Path:
    """A folder with testdata/ and save/ that is also the workspace; `source` is the domain behind the test file."""
    built = run(
        cli, "data", "build", "sports", "--config", table_domain("sports", 24), "--profile", "published", "--name", "source", "--set", "n_candidates=10"
    )
    write_testdata(Path(built["run_dir"]), workspace.root / "testdata" / "sports.jsonl")
    for seed, name in enumerate(("sports", "sports_beauty")):
        write_checkpoint(workspace.root / "save" / name / "checkpoint-1000", tiny_base, seed, tmp_path / "unpickled")
    return workspace.root


def scores(folder: str, titles: dict[str, str] | None = None) -> list[tuple[str, float, bool]]:
    """(title, score, is target) of every candidate, user by user."""
    frame = pl.read_parquet(Path(folder) / "rankings.parquet")
    return [(titles[item] if titles else item, score, own) for item, score, own in frame.select("item_id", "score", "is_target").iter_rows()]


def test_from_the_folder_to_the_metrics(authors: Path, cli: Cli, tiny_base: Path, tmp_path: Path) -> None:
    built = run(cli, "data", "build", "sports", "--config", "published_testdata")
    assert (built["facts"]["counts"]["users"], built["facts"]["counts"]["rows"]) == (24, 0)
    assert built["facts"]["candidates"]["n"] == 10
    assert cli("data", "check", "sports")[0] == 0
    described = run(cli, "data", "stats", "sports")["domains"]["sports"]
    assert (described["valid_users"], described["test_users"]) == (0, 24)
    words = ("--base", tiny_base, "--config", "published", "--set", "mode=score", "--users", "6")
    merged = run(cli, "merge", "--adapters", "save/sports/checkpoint-1000,save/sports_beauty/checkpoint-1000", "--name", "woven")
    assert merged["facts"]["max_relative_error"] <= 1e-6
    one = run(cli, "infer", "sports", "--adapter", "save/sports/checkpoint-1000", *words)
    two = run(cli, "infer", "sports", "--adapter", "save/sports_beauty/checkpoint-1000", *words)
    both = run(cli, "infer", "sports", "--adapter", "woven", *words)
    assert [r["name"] for r in (one, two, both)] == ["sports-sports-checkpoint-1000", "sports-sports_beauty-checkpoint-1000", "sports-woven"]
    assert len({json.dumps(scores(r["run_dir"])) for r in (one, two, both)}) == 3
    evaluated = run(cli, "eval", both["name"], "--baseline", one["name"], "--samples", "100")
    metrics = json.loads((Path(evaluated["run_dir"]) / "metrics.json").read_text())
    assert metrics["n_users"] == 6
    written = run(cli, "infer", "sports", "--adapter", "woven", "--base", tiny_base, "--config", "published", "--users", "2", "--set", "max_new_tokens=4")
    assert (written["facts"]["mode"], written["facts"]["n_users"]) == ("generate", 2)
    assert not (tmp_path / "unpickled").exists()


def test_the_payload_would_have_shown(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "unpickled")))
    assert (tmp_path / "unpickled").exists()


def test_a_checkpoints_tensors_are_those_of_peft(authors: Path, cli: Cli, tiny_base: Path) -> None:
    """Merged alone with weight one, a checkpoint stays what it is."""
    run(cli, "merge", "--adapters", "save/sports/checkpoint-1000", "--weights", "1", "--method", "product", "--name", "alone")
    before = load_file(authors / "save/sports/checkpoint-1000/adapter_model.safetensors")
    folder = authors / "runs/merge/alone/v001/adapter"
    after, config = load_file(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())
    assert set(before) == set(after)
    for key in (k for k in before if "lora_B" in k):
        other = key.replace("lora_B", "lora_A")
        scale = config["lora_alpha"] / config["r"]
        assert abs(scale * after[key] @ after[other] - 2 * before[key] @ before[other]).max() < 1e-5  # 2 = alpha 4 / rank 2


def test_the_test_file_ranks_as_the_domain_behind_it(authors: Path, cli: Cli, tiny_base: Path) -> None:
    """The same histories, candidates, targets and words: a language model gives the same scores, so eval the same figures."""
    write_testdata(authors / "data/processed/source/v001", authors / "testdata/sports.jsonl", PUBLISHED_WORDING)
    run(cli, "data", "build", "sports", "--config", "published_testdata")
    titles = read_domain(authors / "data/processed/source/v001").titles
    words = ("--base", tiny_base, "--adapter", "none", "--set", "prompt.style=published", "--set", "prompt.max_length=4000")
    ours, theirs = (run(cli, "infer", name, *words) for name in ("source", "sports"))
    assert [(title, pytest.approx(score, abs=1e-4), own) for title, score, own in scores(ours["run_dir"], titles)] == scores(theirs["run_dir"])
    figures = []
    for ranked in (ours, theirs):
        evaluated = run(cli, "eval", ranked["name"], "--samples", "100")
        figures.append(json.loads((Path(evaluated["run_dir"]) / "metrics.json").read_text()))
    assert figures[0]["metrics"] == figures[1]["metrics"]
    assert figures[0]["slices"].keys() - {"tied_last_two"} <= figures[1]["slices"].keys()


def test_a_model_is_asked_in_the_words_it_was_taught_in(authors: Path, cli: Cli, tiny_base: Path) -> None:
    """The file's words for what came with it and for a base alone; ours for an adapter that recmerge trained on ours."""
    words = ("--base", tiny_base, "--set", "prompt.style=published", "--set", "prompt.max_length=4000", "--users", "4")
    taught = ("--base", tiny_base, "--set", "prompt.style=published", "--set", "prompt.max_length=4000", "--set", "steps=1", "--set", "batch_size=2")
    run(cli, "train", "source", *taught, "--set", "micro_batch_size=2", "--set", "max_rows=4", "--name", "own")
    adapters = ("none", "save/sports/checkpoint-1000", "own")
    found = []
    for wording in (WORDS, PUBLISHED_WORDING):
        write_testdata(authors / "data/processed/source/v001", authors / "testdata/sports.jsonl", wording)
        run(cli, "data", "build", "sports", "--config", "published_testdata")
        found.append([scores(run(cli, "infer", "sports", "--adapter", adapter, *words)["run_dir"]) for adapter in adapters])
    assert [a == b for a, b in zip(*found, strict=True)] == [False, False, True]


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_checkpoint_is_named(authors: Path, cli: Cli, text: str) -> None:
    run(cli, "data", "build", "sports", "--config", "published_testdata")
    (authors / "save/sports/checkpoint-1000/adapter_config.json").write_text(text)
    code, _, err = cli("infer", "sports", "--adapter", "save/sports/checkpoint-1000", "--quiet")
    assert code == 4
    assert "adapter_config.json cannot be read" in err
    assert len(err.splitlines()) == 1


def test_rankers_that_cost_nothing(authors: Path, cli: Cli) -> None:
    run(cli, "data", "build", "sports", "--config", "published_testdata")
    names = [run(cli, "infer", "sports", "--ranker", ranker)["name"] for ranker in ("random", "popularity", "tfidf", "cooccurrence")]
    evaluated = run(cli, "eval", *names[1:], "--baseline", names[0], "--samples", "100")
    metrics = json.loads((Path(evaluated["run_dir"]) / "metrics.json").read_text())
    assert set(metrics["runs"]) == set(names)
    assert metrics["n_users"] == 24


def test_the_same_file_gives_the_same_bytes(authors: Path, cli: Cli, tmp_path: Path) -> None:
    first = run(cli, "data", "build", "sports", "--config", "published_testdata")
    (authors / "testdata/sports.jsonl").rename(tmp_path / "moved.jsonl")
    assert run(cli, "data", "build", "sports", "--config", "published_testdata", "--set", f"testdata={tmp_path / 'moved.jsonl'}")["already_done"] is True
    again = run(cli, "data", "build", "sports", "--config", "published_testdata", "--set", f"testdata={tmp_path / 'moved.jsonl'}", "--again")
    assert [o["sha256"] for o in first["outputs"]] == [o["sha256"] for o in again["outputs"]]
    assert first["facts"]["candidates"]["sha256"] == again["facts"]["candidates"]["sha256"]


def test_bad_lines_are_put_aside_and_too_many_fail(authors: Path, cli: Cli) -> None:
    path = authors / "testdata/sports.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:-20]
    path.write_text("\n".join(lines) + "\n")
    code, _, err = cli("data", "build", "sports", "--config", "published_testdata", "--quiet")
    assert code == 3
    assert "1 of 24 lines cannot be used (1 malformed)" in err
    assert "sports.jsonl:5" in err
    built = run(cli, "data", "build", "sports", "--config", "published_testdata", "--set", "max_bad=0.05")
    [reject] = [json.loads(line) for line in (Path(built["run_dir"]) / "rejects.jsonl").read_text().splitlines()]
    assert (reject["line"], reject["reason"]) == (5, "malformed")
    users = pl.read_parquet(Path(built["run_dir"]) / "users.parquet")["user_id"].to_list()
    assert users == [f"{n:02d}" for n in range(1, 25) if n != 5]


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("data", "build", "sports", "--config", "published_testdata", "--split", "time"), 2, "split time means nothing to it"),
        (("data", "build", "sports", "--config", "published_testdata", "--users", "5", "--set", "k_core=3"), 2, "k_core 3, users 5 means nothing"),
        (("data", "build", "sports", "--config", "published_testdata", "--profile", "clean"), 2, "profile clean means nothing"),
        (("data", "build", "toys", "--config", "published_testdata"), 4, "testdata/toys.jsonl does not exist"),
        (("data", "mix", "sports", "source"), 3, "sports@v001 has no training rows"),
        (("data", "mix", "source", "sports"), 3, "sports@v001 has no training rows"),
        (("data", "export", "sports", "--format", "trl"), 3, "sports@v001 has no training rows"),
        (("train", "sports"), 3, "sports@v001 has no training rows"),
        (("infer", "sports", "--ranker", "random", "--split", "valid"), 3, "nobody is asked in the valid split of 'sports'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(authors: Path, cli: Cli, words: tuple[str, ...], code: int, what: str) -> None:
    run(cli, "data", "build", "sports", "--config", "published_testdata", "--set", "profile=published")
    got, out, err = cli(*words, "--quiet")
    assert (got, out) == (code, "")
    assert err.startswith("error[")
    assert what in err
    assert len(err.splitlines()) == 1
