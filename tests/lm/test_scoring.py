"""Packed scoring equals scoring every full sequence alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from recmerge.lm.lora import new_lora
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question, TitleTree

SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen2, output layer of its own": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": False}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8}),
    "gemma2, logits capped": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 8, "layer_types": ["full_attention"] * 2}),
}


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model, config, extra = MODELS[name]
    return model(config(**SHAPE, **extra)).eval()


def questions(n: int, seed: int = 0) -> list[Question]:
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(3, 97, rng.integers(low, high)))

    return [Question(tokens(1, 40), tuple((*tokens(0, 12), 2) for _ in range(30))) for _ in range(n)]


def alone(model: torch.nn.Module, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    """The definition: one sequence, no batch, no cache."""
    with torch.inference_mode():
        logs = torch.log_softmax(model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double(), -1)
    return float(sum(logs[len(prompt) - 1 + i, token] for i, token in enumerate(answer)))


@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_every_sequence_alone(name: str) -> None:
    model, asked = make(name), questions(5)
    scorer = Scorer(model, pad_id=0)
    got = scorer.score(asked)
    assert scorer.method == "packed"
    for question, scores in zip(asked, got, strict=True):
        want = np.array([alone(model, question.prompt, a) for a in question.answers])
        np.testing.assert_allclose(scores, want, atol=1e-4)
        assert (np.argsort(scores) == np.argsort(want)).all()


def test_with_an_adapter_whose_b_is_not_zero() -> None:
    model = new_lora(make("qwen2"), rank=4, alpha=8, dropout=0.1, target_modules="all-linear", use_rslora=False, init_seed=0).eval()
    plain = Scorer(model, 0).score(questions(1))[0]
    for parameter_name, tensor in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(tensor, std=0.3)
    question = questions(1)[0]
    got = Scorer(model, 0).score([question])[0]
    np.testing.assert_allclose(got, [alone(model, question.prompt, a) for a in question.answers], atol=1e-4)
    assert np.abs(got - plain).max() > 0.01  # the adapter does something


def test_a_batch_gives_each_user_what_alone_gives() -> None:
    model, asked = make("llama"), questions(7)
    together = Scorer(model, 0).score(asked)
    for question, scores in zip(asked, together, strict=True):
        np.testing.assert_allclose(Scorer(model, 0).score([question])[0], scores, atol=1e-5)


def test_equal_answers_share_one_score_to_the_bit() -> None:
    question = Question((5, 6, 7), ((8, 9, 2), (10, 2), (8, 9, 2), (2,)))
    for method in ("packed", "reused", "full"):
        scorer = Scorer(make("qwen2"), 0)
        scorer.method = method
        scores = scorer.score([question])[0]
        assert scores[0] == scores[2]
        assert len(set(scores)) == 3


def test_a_sliding_window_model_reuses_the_prompt() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16)).eval()
    for prompt in ((3, 4, 5), tuple(range(3, 60))):  # too short to show the window, and longer than it
        question = Question(prompt, questions(1, seed=3)[0].answers)
        scorer = Scorer(model, 0)
        scores = scorer.score([question])[0]
        assert scorer.method == "reused"
        np.testing.assert_allclose(scores, [alone(model, question.prompt, a) for a in question.answers], atol=1e-4)


def test_a_state_space_model_is_scored_in_full() -> None:
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=8)).eval()
    question = questions(1)[0]
    scorer = Scorer(model, 0)
    scores = scorer.score([question])[0]
    assert scorer.method == "full"
    np.testing.assert_allclose(scores, [alone(model, question.prompt, a) for a in question.answers], atol=1e-4)


def drawn(n_answers: int, longest: int, vocabulary: int, seed: int = 0) -> Question:
    """Draw answers from few tokens, so that many begin alike."""
    rng = np.random.default_rng(seed)
    answers = [(*(int(t) for t in rng.integers(3, vocabulary, rng.integers(0, longest))), 2) for _ in range(n_answers)]
    return Question(tuple(range(3, 20)), tuple(answers))


@pytest.mark.parametrize(("n_answers", "longest", "vocabulary"), [(1, 5, 97), (5, 1, 97), (300, 6, 8), (40, 60, 97), (60, 12, 5)])
@pytest.mark.parametrize("block", [1, 30, 512])
def test_whatever_the_titles_and_blocks(monkeypatch: pytest.MonkeyPatch, n_answers: int, longest: int, vocabulary: int, block: int) -> None:
    monkeypatch.setattr("recmerge.lm.scoring._BLOCK", block)
    model, question = make("qwen2"), drawn(n_answers, longest, vocabulary)
    want = [alone(model, question.prompt, a) for a in question.answers]
    scorer = Scorer(model, 0)
    for one_by_one in (True, False):
        scorer._one_by_one = one_by_one
        np.testing.assert_allclose(scorer.score([question])[0], want, atol=2e-4)
        assert scorer.method == "packed"
        both = scorer.score([question, drawn(7, 9, 97, seed=1)])
        np.testing.assert_allclose(both[0], want, atol=2e-4)


def test_a_tree_holds_each_beginning_once() -> None:
    tree = TitleTree(Question((5, 6), ((7, 8, 2), (7, 9, 2), (7, 8, 2), (4, 2), (2,))))
    assert tree.ids.tolist() == [5, 6, 7, 8, 9, 4]
    assert tree.positions.tolist() == [0, 1, 2, 3, 3, 2]
    assert tree.predicting.tolist() == [1, 2, 3, 4, 5]  # the prompt's end predicts three tokens, from one distribution
    assert len(tree.targets) == 8
    seen = [[0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5]]
    assert [np.flatnonzero(row).tolist() for row in tree.allowed_in_full()[1:]] == seen


def test_generating_goes_on_as_before_with_tree_attention() -> None:
    model = make("llama")
    asked = torch.tensor([[3, 4, 5, 6]])
    before = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=5, do_sample=False)
    Scorer(model, 0).score(questions(1))
    assert torch.equal(model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=5, do_sample=False), before)


def test_no_questions_no_scores() -> None:
    assert Scorer(make("qwen2"), 0).score([]) == []


@pytest.mark.parametrize("name", ["qwen2", "mistral, windowed"])
def test_states_before_the_last_token_and_their_gradients(name: str) -> None:
    if name == "qwen2":
        model = make(name)
    else:
        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)).eval()
    asked = [replace(q, answers=tuple((*a[:3], 5) for a in q.answers)) for q in questions(3)]
    with torch.no_grad():
        found = Scorer(model, pad_id=0).before_last(asked)
        for question, states in zip(asked, found, strict=True):
            for answer, state in list(zip(question.answers, states, strict=True))[:6]:
                ids = torch.tensor([[*question.prompt, *answer[:-1]]])
                torch.testing.assert_close(state, model.get_decoder()(input_ids=ids).last_hidden_state[0, -1], atol=1e-4, rtol=0)
    taught = Scorer(model, pad_id=0).before_last(asked)
    for states, same in zip(taught, found, strict=True):  # with gradients: in one padded batch
        torch.testing.assert_close(states.detach(), same, atol=1e-4, rtol=0)
    torch.cat(taught).sum().backward()
    assert next(model.parameters()).grad is not None
