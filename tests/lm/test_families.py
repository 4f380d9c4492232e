"""Scores of models of many families equal the definition, whichever way they are found; and training's loss is the model's own."""

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

from recmerge.errors import ArtifactError, ConfigError
from recmerge.lm.scoring import Scorer
from recmerge.lm.scoring_method import quick_methods, rotates_by_length
from recmerge.lm.title_tree import Question
from recmerge.lm.token_logs import token_logs
from tests.lm.test_scoring import alone

V = 120
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {
    **ENDS,
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
GPT = {**ENDS, "vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
FALCON = {**ENDS, "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64,
    "factor": 8.0,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}

FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen2": ("Qwen2", LLAMA, "packed"),
    "qwen2, window": ("Qwen2", {**LLAMA, **WINDOW}, "reused"),
    "llama, one key head, tied": ("Llama", {**LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True}, "packed"),
    "mistral, window": ("Mistral", {**LLAMA, "sliding_window": 16}, "reused"),
    "gpt2": ("GPT2", GPT, "packed"),
    "gpt-neo, a local layer": (
        "GPTNeo",
        {**ENDS, "vocab_size": V, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
        "reused",
    ),
    "falcon": ("Falcon", {**FALCON, "alibi": False, "new_decoder_architecture": False}, ""),
    "falcon, alibi": ("Falcon", {**FALCON, "alibi": True}, ""),
    "granite, scaled logits": ("Granite", {**LLAMA, "logits_scaling": 8.0}, ""),
    "cohere, scaled logits": ("Cohere", {**LLAMA, "logit_scale": 0.25}, ""),
    "phi3, angles by length": ("Phi3", {**LLAMA, "sliding_window": None, "original_max_position_embeddings": 64, "rope_parameters": LONG}, "full"),
    "mamba": ("Mamba", {**ENDS, "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, ""),
}


def make(family: str) -> Any:
    name, settings, _ = FAMILIES[family]
    ending = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    torch.manual_seed(0)
    model = getattr(transformers, name + ending)(getattr(transformers, f"{name}Config")(**settings)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3.0)  # so that what a token sees shows
    return model


def asked(lengths: tuple[int, ...] = (9, 40, 70), n_answers: int = 30) -> list[Question]:
    draw = np.random.default_rng(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(int(t) for t in draw.integers(3, V, n))

    starts = [tokens(4), tokens(2)]
    return [Question(tokens(n), tuple((*starts[i % 2], *tokens(int(draw.integers(0, 12))), 2) for i in range(n_answers))) for n in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_scored_as_each_answer_alone(family: str) -> None:
    questions = asked()
    want = [[alone(make(family), q.prompt, a) for a in q.answers] for q in questions]
    model = make(family)
    scorer = Scorer(model, pad_id=0)
    scorer.prepare(questions[-1])
    for one, scores in zip(want, scorer.score(questions), strict=True):
        np.testing.assert_allclose(scores, one, atol=3e-4)
    if FAMILIES[family][2]:
        assert scorer.method == FAMILIES[family][2]
    ids = torch.tensor([questions[0].prompt])
    with torch.inference_mode():  # whatever was tried: the model is what it was
        torch.testing.assert_close(model(input_ids=ids).logits, make(family)(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_angles_by_length_are_not_shared_between_threads() -> None:
    model, questions = make("phi3, angles by length"), asked((9, 60, 70, 20) * 3, n_answers=3)
    scorer = Scorer(model, pad_id=0)
    want = [scorer.score([q])[0] for q in questions]
    found: list[list[np.ndarray]] = [[] for _ in range(2)]

    def score(k: int) -> None:
        found[k] += [scorer.score([q])[0] for q in questions]

    threads = [Thread(target=score, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scores in found:
        for one, other in zip(scores, want, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_window_in_the_text_part_is_seen() -> None:
    class Nested:
        class config:  # noqa: N801
            sliding_window = None

            @staticmethod
            def get_text_config() -> Any:
                return transformers.Gemma3TextConfig(sliding_window=16, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])

    assert quick_methods(Nested) == ("reused",)
    assert quick_methods(make("qwen2")) == ("packed", "reused")
    assert rotates_by_length(make("phi3, angles by length"))
    assert not rotates_by_length(make("qwen2"))


def test_what_a_base_cannot_read_is_one_line() -> None:
    short = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT, "n_positions": 32})).eval()
    with pytest.raises(ConfigError, match=r"take \d+ tokens, more than the base has positions for"):
        Scorer(short, 0).score(asked((40,)))
    with pytest.raises(ArtifactError, match="more tokens than the 120 of the base"):
        Scorer(make("qwen2"), 0).score([Question((3, 500), ((4, 2),))])


def test_no_memory_is_not_taken_for_a_wrong_method(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Scorer, "_packed", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Scorer(make("qwen2"), 0).score(asked((9,)))


@pytest.mark.parametrize(("family", "is_bare"), [("qwen2", True), ("granite, scaled logits", False), ("cohere, scaled logits", False), ("falcon", True)])
def test_the_fused_loss_is_used_where_the_output_layer_is_all(family: str, is_bare: bool) -> None:
    from recmerge.lm.lora import new_lora
    from recmerge.lm.trainer import AdapterTrainer

    model = make(family)
    targets = "all-linear"
    lora = new_lora(model, rank=2, alpha=4, dropout=0.1, target_modules=targets, use_rslora=False, init_seed=0).train()
    ask: Callable[[Any, Any], bool] = AdapterTrainer._is_bare
    trainer = AdapterTrainer.__new__(AdapterTrainer)
    assert ask(trainer, lora, torch.randint(3, V, (2, 20))) is is_bare  # type: ignore[call-arg, arg-type]
    assert lora.training


def test_log_probabilities_of_capped_logits() -> None:
    config = transformers.Gemma2Config(**{**LLAMA, "head_dim": 8, "final_logit_softcapping": 2.0})
    model = transformers.Gemma2ForCausalLM(config).eval()
    ids = torch.randint(3, V, (1, 20))
    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=ids).last_hidden_state[0]
        want = functional.log_softmax(model(input_ids=ids).logits[0], -1)
        found = token_logs(model, hidden, torch.arange(20), ids[0])
    torch.testing.assert_close(found.float(), want.gather(1, ids[0][:, None])[:, 0], rtol=1e-4, atol=1e-4)
