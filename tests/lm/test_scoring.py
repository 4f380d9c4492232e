"""Packed scoring equals scoring every full sequence alone."""

import numpy as np
import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from recmerge.lm.lora import new_lora
from recmerge.lm.scoring import Question, Scorer

SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8}),
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
    for method in ("packed", "full"):
        scorer = Scorer(make("qwen2"), 0)
        scorer.method = method
        scores = scorer.score([question])[0]
        assert scores[0] == scores[2]
        assert len(set(scores)) == 3


def test_a_sliding_window_model_falls_back_to_full_sequences() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16)).eval()
    question = Question((3, 4, 5), questions(1, seed=3)[0].answers)  # too short to show the window
    scorer = Scorer(model, 0)
    scores = scorer.score([question])[0]
    assert scorer.method == "full"
    np.testing.assert_allclose(scores, [alone(model, question.prompt, a) for a in question.answers], atol=1e-4)


def test_no_questions_no_scores() -> None:
    assert Scorer(make("qwen2"), 0).score([]) == []
