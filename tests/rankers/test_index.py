"""Ranking by label: one softmax over the labels' logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_domain_tables
from transformers import AutoModelForCausalLM, AutoTokenizer

from recmerge.data.dataset import Domain, Example, examples, read_domain
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.rankers.llm import LlmRanker
from recmerge.runs import Workspace


@pytest.fixture
def domain(workspace: Workspace, cli: Any, tmp_path: Path) -> Domain:
    config = write_domain_tables(tmp_path / "tables", "sports")
    assert cli("data", "build", "sports", "--config", config, "--set", "n_candidates=12", "--quiet")[0] == 0
    return read_domain(workspace.root / "data/processed/sports/v001")


@pytest.fixture
def ranker(tiny_base: Path, domain: Domain) -> LlmRanker:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)  # so that labels differ
    return LlmRanker(model, Encoder(AutoTokenizer.from_pretrained(tiny_base), PromptSettings("index", 900)), domain.titles)


def by_hand(ranker: LlmRanker, domain: Domain, example: Example) -> np.ndarray:
    """The model's own logits after the whole prompt, of the labels alone."""
    encoder, titles = ranker.encoder, [domain.titles[c] for c in example.candidates]
    prompt = encoder.prompt([domain.titles[i] for i in example.history], titles, 1)
    assert prompt is not None
    with torch.inference_mode():
        logits = ranker.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].double()
    labels = encoder.tokenizer.convert_tokens_to_ids(list("ABCDEFGHIJKL"))
    return torch.log_softmax(logits[labels], 0).numpy()


def test_scores_are_the_softmax_over_the_labels(ranker: LlmRanker, domain: Domain) -> None:
    asked = examples(domain, "test")[:5]
    scores = ranker.score(asked)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-12)
    for row, example in zip(scores, asked, strict=True):
        np.testing.assert_allclose(row, by_hand(ranker, domain, example), atol=1e-5)
        assert np.ptp(row) > 0.01


def test_no_user_depends_on_the_others(ranker: LlmRanker, domain: Domain) -> None:
    asked = examples(domain, "test")[:11]
    alone = np.concatenate([ranker.score([example]) for example in asked])
    for size in (1, 3, 16):
        ranker.batch_size = size
        np.testing.assert_allclose(ranker.score(asked), alone, atol=1e-5)
    np.testing.assert_allclose(ranker.score(asked[::-1]), alone[::-1], atol=1e-5)


def test_equal_titles_share_one_score_to_the_bit(ranker: LlmRanker, domain: Domain) -> None:
    example = examples(domain, "test")[0]
    twice = Example(example.domain, example.user_id, example.history, example.target, (*example.candidates, example.candidates[3]))
    scores = ranker.score([twice])[0]
    assert scores[3] == scores[-1]
    assert np.exp(scores[:-1]).sum() == pytest.approx(1)  # listed once, so counted once


@pytest.mark.parametrize("style", ["open", "listwise", "index"])
def test_unknown_items_are_no_part_of_a_history_and_are_asked_about_without_a_title(style: str, ranker: LlmRanker, domain: Domain) -> None:
    ranker.encoder = Encoder(ranker.encoder.tokenizer, PromptSettings(style, 900))  # type: ignore[arg-type]
    example = examples(domain, "test")[0]
    asked = Example(example.domain, example.user_id, ("nowhere", *example.history), example.target, (*example.candidates, "nowhere"))
    known = Example(example.domain, example.user_id, example.history, example.target, (*example.candidates, "nowhere"))
    scores = ranker.score([asked])
    assert np.isfinite(scores).all()
    assert scores.tolist() == ranker.score([known]).tolist()
    if style == "open":
        np.testing.assert_allclose(scores[0, :-1], ranker.score([example])[0], atol=1e-5)
        assert ranker.score_all([asked], [*example.candidates, "nowhere"]) == pytest.approx(scores, abs=1e-5)
        assert ranker.score_all([asked], []).shape == (1, 0)
