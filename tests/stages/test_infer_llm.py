"""`train` and `infer` by label, constrained answers, precision and backends, from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import answer, refusal, write_domain_tables

from recmerge.cli.main import main
from recmerge.config.infer import InferConfig
from recmerge.rankers import sources
from recmerge.stages.infer_llm import LLM_CODE
from recmerge.stages.train import _CODE as TRAIN_CODE

SMALL = ["--set", "steps=3", "--set", "batch_size=4", "--set", "micro_batch_size=2", "--set", "max_rows=12", "--set", "prompt.max_length=900"]
SMALL += ["--set", "prompt.max_title_tokens=null"]  # titles stay apart


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A workspace with a domain and two adapters on it: one that answers by label, one that answers by title."""
    folder = tmp_path_factory.mktemp("infer")
    config = write_domain_tables(folder / "tables", "sports")
    assert main(["data", "build", "sports", "--config", str(config), "--set", "n_candidates=8", "--workspace", str(folder), "--quiet"]) == 0
    for style, more in (("index", ["--set", "patience=1", "--set", "eval_every=2", "--set", "eval_buyers=5"]), ("open", [])):
        command = ["train", "sports", "--base", str(tiny_base), "--name", style, *SMALL, *more, "--set", f"prompt.style={style}"]
        assert main([*command, "--workspace", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECMERGE_WORKSPACE", str(root))
    return root


def infer(cli: Any, *words: object) -> dict[str, Any]:
    return answer(cli, "infer", "sports", "--users", 7, *words)


def test_an_adapter_that_answers_by_label_is_asked_for_labels(here: Path, cli: Any) -> None:
    run = here / "runs/train/index/v001"
    counts = json.loads((run / "manifest.json").read_text())["facts"]["counts"]
    assert counts["tokens_trained"] == counts["rows_trained"] == counts["sequences"] == 12
    assert json.loads((run / "adapter/recmerge.json").read_text())["prompt"]["style"] == "index"
    document = infer(cli, "--adapter", "index")
    manifest = json.loads((Path(document["run_dir"]) / "manifest.json").read_text())
    assert manifest["config"]["prompt"]["style"] == manifest["facts"]["prompts"]["style"] == "index"
    assert manifest["facts"]["scoring"]["method"] == "packed"
    frame = pl.read_parquet(Path(document["run_dir"]) / "rankings.parquet")
    assert frame.columns == ["user_id", "item_id", "score", "rank", "is_target"]
    sums = frame.group_by("user_id").agg(pl.col("score").exp().sum())["score"]
    assert sums.to_list() == pytest.approx([1.0] * 7)
    assert answer(cli, "eval", document["name"])["outputs"]


def test_constrained_answers_are_never_malformed(here: Path, cli: Any) -> None:
    for beams in (1, 3):
        document = infer(cli, "--adapter", "open", "--mode", "generate", "--set", "constrained=true", "--set", f"beams={beams}")
        folder = Path(document["run_dir"])
        assert document["name"] == "sports-open-generate-constrained"
        written = pl.read_parquet(folder / "generations.parquet")
        assert written.columns == ["user_id", "text", "n_titles", "malformed", "off_list", "repeated"]
        assert (written["n_titles"].to_list(), written["malformed"].sum(), written["off_list"].sum()) == ([beams] * 7, 0, 0)
        assert (document["facts"]["malformed"], document["facts"]["off_list"]) == (0, 0)
        frame = pl.read_parquet(folder / "rankings.parquet")
        ranks = frame.drop_nulls("rank").group_by("user_id").agg(pl.col("rank").sort())["rank"]
        assert ranks.to_list() == [list(range(1, beams + 1))] * 7


def test_all_beams_rank_as_scores_do(here: Path, cli: Any) -> None:
    by_score = infer(cli, "--adapter", "open")["run_dir"]
    by_beams = infer(cli, "--adapter", "open", "--mode", "generate", "--set", "constrained=true", "--set", "beams=8")["run_dir"]
    one, two = (pl.read_parquet(Path(r) / "rankings.parquet").select("user_id", "item_id", "rank") for r in (by_score, by_beams))
    assert one.equals(two)


def test_the_manifest_says_which_precision_and_backend_ran(here: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {}
    for has in (False, True):
        monkeypatch.setattr("recmerge.lm.precision.multiplies_bf16", lambda _, has=has: has)
        runs[has] = infer(cli, "--adapter", "open", "--set", "precision=auto")
        manifest = json.loads((Path(runs[has]["run_dir"]) / "manifest.json").read_text())
        want = "bf16" if has else "fp32"
        assert (manifest["facts"]["precision"], manifest["config"]["precision"], manifest["facts"]["backend"]) == (want, want, "transformers")
    assert runs[False]["run_dir"] == infer(cli, "--adapter", "open")["run_dir"]  # fp32, as by default
    one, two = (pl.read_parquet(Path(runs[has]["run_dir"]) / "rankings.parquet")["score"] for has in runs)
    assert 0 < (one - two).abs().max() < 0.5


def test_older_runs_keep_their_identity() -> None:
    assert not {"constrained", "beams", "backend", "vllm"} & InferConfig(adapter="none").resolved().keys()
    assert InferConfig(adapter="none", backend="vllm").resolved()["backend"] == "vllm"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adapter", "index", "--mode", "generate"], "one token"),
        (["--adapter", "index", "--set", "normalize=pmi"], "labels of one token"),
        (["--adapter", "index", "--candidates", "all"], "the index prompt of adapter 'index' names its candidates"),
        (["--adapter", "open", "--set", "constrained=true"], "constrained=true is for written answers"),
        (["--adapter", "open", "--mode", "generate", "--set", "beams=3"], "beams=3 needs constrained=true"),
        (["--adapter", "open", "--set", "vllm.max_model_len=9"], "settings under vllm need backend vllm"),
        (["--adapter", "open", "--backend", "vllm", "--device", "cpu"], "chooses its device itself"),
        (["--ranker", "popularity", "--backend", "vllm"], "backend vllm runs language models"),
        (["--ranker", "popularity", "--mode", "generate"], "ranker 'popularity' writes no answers"),
        (["--ranker", "popularity", "--base", "nano"], "base=nano is for a language model"),
        (["--ranker", "popularity", "--set", "prompt.style=index"], "prompt is for a language model"),
    ],
)
def test_what_does_not_go_together_is_refused(here: Path, cli: Any, words: list[str], said: str) -> None:
    code, line = refusal(cli, "infer", "sports", *words)
    assert code == 2
    assert said in line


def test_one_setting_of_the_prompt_leaves_the_others_as_taught(here: Path, cli: Any) -> None:
    taught, longer, other = (infer(cli, "--adapter", "open", *more) for more in ([], ["--set", "prompt.max_length=901"], ["--set", "prompt.style=listwise"]))
    prompts = [json.loads((Path(made["run_dir"]) / "manifest.json").read_text())["config"]["prompt"] for made in (taught, longer, other)]
    assert prompts[0]["max_length"] == 900
    assert prompts[1] == {**prompts[0], "max_length": 901}
    assert prompts[2] == {"style": "listwise", "max_length": 1200, "max_history": None, "max_title_tokens": None}  # nothing was taught of another style


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("ranker", ["popularity", "tfidf"])
def test_a_missing_gpu_is_an_error_for_every_ranker(here: Path, cli: Any, ranker: str) -> None:
    assert refusal(cli, "infer", "sports", "--ranker", ranker, "--device", "cuda")[0] == 5


def test_a_missing_vllm_is_one_line_with_the_command(here: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.lm.vllm_backend.find_spec", lambda _: None)
    before = sorted((here / "runs").rglob("*"))
    code, line = refusal(cli, "infer", "sports", "--adapter", "open", "--backend", "vllm")
    assert code == 2
    assert "pip install 'recmerge[vllm]'" in line
    assert sorted((here / "runs").rglob("*")) == before


def test_too_many_candidates_for_labels_are_one_line(here: Path, cli: Any, tiny_base: Path, tmp_path: Path) -> None:
    """The tiny tokenizer has 400 tokens; the largest list of candidates that 40 items allow has labels, so the labels are taken away."""
    config = write_domain_tables(tmp_path, "toys")
    assert cli("data", "build", "toys", "--config", config, "--quiet")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recmerge.lm.labels.LABELS", tuple("ABCDEFGHIJ"))
        code, line = refusal(cli, "train", "toys", "--base", tiny_base, *SMALL, "--set", "prompt.style=index")
    assert code == 2
    assert "30 candidates need a label of one token each, and this tokenizer has 10" in line


def test_scores_that_are_no_numbers_are_refused(here: Path, cli: Any, tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(tiny_base, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    code, line = refusal(cli, "infer", "sports", "--adapter", "none", "--base", broken, "--users", "5", "--quiet")
    assert code == 4
    assert "scores of 5 of 5 users are not all numbers" in line


def test_another_tokenizer_than_the_adapters_is_told(here: Path, cli: Any, tiny_base: Path) -> None:
    card = here / "runs/train/open/v001/adapter/recmerge.json"
    kept = card.read_text()
    try:
        card.write_text(json.dumps(json.loads(kept) | {"tokenizer_sha256": "0" * 64}))
        _, _, err = cli("infer", "sports", "--adapter", str(card.parent), "--users", "4", "--name", "other-words")
        assert "is not the one that adapter" in err
    finally:
        card.write_text(kept)


def test_a_change_of_any_file_that_scores_is_another_run() -> None:
    """All that scoring and training import is named, but for what changes no figure: how cores share the work, and what watches a run."""
    scoring = {file for file in sources("recmerge.rankers.llm") if file.startswith("lm/")}
    training = {file for name in ("sft", "sequences", "trainer", "validation") for file in sources(f"recmerge.lm.{name}") if file.startswith("lm/")}
    assert scoring - set(LLM_CODE) == {"lm/cores.py"}
    assert training - set(TRAIN_CODE) <= {"lm/watcher.py"}
