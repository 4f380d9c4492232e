"""Scores per token and less what a title has without a history; the choice between them on validation users."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import answer, refusal, write_domain_tables
from transformers import AutoModelForCausalLM, AutoTokenizer

from recmerge.config.infer import InferConfig
from recmerge.data.dataset import Domain, Example, examples, read_domain
from recmerge.errors import DataError
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.rankers.llm import LlmRanker
from recmerge.rankers.normalization import Likelihoods, best_normalization, gathered
from recmerge.runs import Workspace


@pytest.fixture
def domain(workspace: Workspace, cli: Any, tmp_path: Path) -> Domain:
    config = write_domain_tables(tmp_path / "tables", "sports")
    assert cli("data", "build", "sports", "--config", config, "--set", "n_candidates=12", "--quiet")[0] == 0
    return read_domain(workspace.root / "data/processed/sports/v001")


def ranker_on(base: Path, domain: Domain, style: str) -> LlmRanker:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return LlmRanker(model, Encoder(AutoTokenizer.from_pretrained(base), PromptSettings(style, 900)), domain.titles)


def alone(ranker: LlmRanker, prompt: list[int], title: str) -> tuple[float, int]:
    """Return a title's log-likelihood after a prompt, as one sequence, and its tokens."""
    ids = [*prompt, *ranker.encoder.answer(title)]
    with torch.inference_mode():
        logs = torch.log_softmax(ranker.model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    return float(sum(logs[i - 1, ids[i]] for i in range(len(prompt), len(ids)))), len(ids) - len(prompt)


@pytest.mark.parametrize("style", ["open", "listwise"])
def test_the_formulas(tiny_base: Path, domain: Domain, style: str) -> None:
    asked = examples(domain, "test")[:5]
    raw = ranker_on(tiny_base, domain, style).score(asked)
    for how in ("mean", "pmi"):
        ranker = ranker_on(tiny_base, domain, style)
        ranker.normalization = how
        found = ranker.score(asked)
        nothing = list(ranker.encoder.prompt([], [], 0).ids)
        for row, example in enumerate(asked):
            for column, item in enumerate(example.candidates):
                prior, n_tokens = alone(ranker, nothing, domain.titles[item])
                want = raw[row, column] / n_tokens if how == "mean" else raw[row, column] - prior
                assert found[row, column] == pytest.approx(want, abs=1e-4)


def test_scores_come_in_the_order_asked(tiny_base: Path, domain: Domain) -> None:
    ranker, asked = ranker_on(tiny_base, domain, "open"), examples(domain, "test")[:9]
    want = np.concatenate([ranker.score([example]) for example in asked])
    np.testing.assert_allclose(ranker.score(asked), want, atol=1e-5)


@pytest.mark.parametrize("how", ["sum", "mean", "pmi"])
def test_a_whole_catalogue_is_scored_as_any_list(tiny_base: Path, domain: Domain, how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.rankers.llm._TOKENS", 60)  # several passes
    ranker, asked = ranker_on(tiny_base, domain, "open"), examples(domain, "test")[:4]
    ranker.normalization = how
    items = sorted(domain.titles)
    found = ranker.score_all(asked, items)
    for example, row in zip(asked, found, strict=True):
        alike = Example(example.domain, example.user_id, example.history, example.target, tuple(items))
        np.testing.assert_allclose(row, ranker.score([alike])[0], atol=1e-4)
    assert ranker.score_all([], items).shape == (0, len(items))


def test_infer_ranks_the_whole_catalogue_with_a_model(tiny_base: Path, domain: Domain, cli: Any) -> None:
    words = ("infer", "sports", "--adapter", "none", "--base", str(tiny_base), "--users", "9", "--candidates", "all", "--set", "prompt.style=open")
    made = answer(cli, *words)
    assert made["facts"]["candidates"]["kind"] == "all"
    assert made["facts"]["scoring"]["method"] == "packed"
    frame = pl.read_parquet(Path(made["run_dir"]) / "rankings.parquet")
    ranker, asked = ranker_on(tiny_base, domain, "open"), {e.user_id: e for e in examples(domain, "test")}
    for (user,), mine in frame.group_by("user_id"):
        example, own = asked[user], mine.sort("rank")
        free = {i for i in domain.titles if i not in domain.sequences[user] or i == example.target}
        assert set(own["item_id"]) <= free
        best = Example("sports", user, example.history, example.target, tuple(own["item_id"]))
        np.testing.assert_allclose(own["score"].to_numpy(), ranker.score([best])[0], atol=1e-4)
    assert answer(cli, "eval", made["name"])["n_users"] == 9


def test_a_prior_is_asked_once_per_title(tiny_base: Path, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker, asked = ranker_on(tiny_base, domain, "open"), examples(domain, "test")[:5]
    ranker.normalization = "pmi"
    first = ranker.score(asked)
    calls = []
    monkeypatch.setattr(ranker.scorer, "score", lambda questions, real=ranker.scorer.score: calls.append(len(questions)) or real(questions))
    np.testing.assert_array_equal(ranker.score(asked), first)
    assert sum(calls) == len(asked)


def test_a_tokenizer_without_a_start_token_is_told(tiny_base: Path, domain: Domain) -> None:
    ranker = ranker_on(tiny_base, domain, "open")
    ranker.encoder.tokenizer.bos_token = ranker.encoder.tokenizer.pad_token = None
    ranker.normalization = "pmi"
    with pytest.raises(DataError, match="no start token"):
        ranker.score(examples(domain, "test")[:1])


def test_the_choice() -> None:
    sums, n_tokens = np.array([[-4.0, -9.0], [-2.0, -9.0]]), np.array([[1.0, 3.0], [1.0, 3.0]])
    found = Likelihoods(sums, n_tokens, np.array([[-1.0, -9.5], [-1.0, -3.0]]))
    assert best_normalization(found, [1, 1]) == ("mean", {"sum": 0.5, "mean": 0.75, "pmi": 0.75})  # the first of equals
    assert best_normalization(found, [0, 0]) == ("sum", {"sum": 1.0, "mean": 0.75, "pmi": 0.75})
    halves = [([1], Likelihoods(sums[1:], n_tokens[1:], sums[1:])), ([0], Likelihoods(sums[:1], n_tokens[:1], sums[:1]))]
    np.testing.assert_array_equal(gathered(halves, 2).sums, sums)


def test_infer_chooses_on_validation_users(tiny_base: Path, domain: Domain, cli: Any) -> None:
    assert "normalize" not in InferConfig(adapter="none").resolved()  # older runs keep their identity
    words = ("infer", "sports", "--adapter", "none", "--base", str(tiny_base), "--users", "8")
    plain = answer(cli, *words)
    made = answer(cli, *words, "--set", "normalize=auto")
    assert made["name"] == plain["name"] + "-auto"
    facts = made["facts"]["normalization"]
    assert facts["mrr"][facts["chosen"]] == max(facts["mrr"].values())
    assert facts["valid_users"] == len(examples(domain, "valid"))
    chosen = answer(cli, *words, "--set", f"normalize={facts['chosen']}", "--name", "chosen")
    auto, same = (pl.read_parquet(Path(run["run_dir"]) / "rankings.parquet") for run in (made, chosen))
    assert auto.equals(same)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--ranker", "popularity", "--set", "normalize=pmi"), "ranker 'popularity' has none"),
        (("--adapter", "none", "--set", "normalize=mean", "--set", "mode=generate"), "written answers have none"),
        (("--adapter", "none", "--set", "normalize=auto", "--split", "valid"), "chosen on validation users"),
    ],
)
def test_what_has_nothing_to_normalize_is_refused(domain: Domain, cli: Any, words: tuple[str, ...], text: str) -> None:
    code, err = refusal(cli, "infer", "sports", *words)
    assert code == 2
    assert text in err


def test_nobody_no_scores(tiny_base: Path, domain: Domain) -> None:
    nobody: list[Example] = []
    assert ranker_on(tiny_base, domain, "open").score(nobody).size == 0
