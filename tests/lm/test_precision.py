"""bf16 where the hardware has it, and what it does to scores."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recmerge.lm.base import shipped_base
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.precision import multiplies_bf16, pick_precision
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question

CPU = torch.device("cpu")
TOLERANCE = 0.1  # nats per token of an answer, bf16 against fp32; of 750 titles of the sample the most is .055, the mean .009


def test_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, want in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has: has)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert pick_precision("auto", CPU) == want
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert pick_precision("auto", torch.device("cuda")) == want


def test_what_is_asked_for_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.lm.precision.multiplies_bf16", lambda _: pytest.fail("not asked"))
    assert [pick_precision(wanted, CPU) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_torch_without_the_tests_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not multiplies_bf16(CPU)


def test_bf16_scores_are_summed_in_float64_and_stay_near_fp32() -> None:
    folder = shipped_base("nano")
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), PromptSettings("open", 200))
    titles = ["Coleman Camping Stove", "Speedo Swim Goggles", "Gaiam Yoga Mat", "LEGO City Police Car", "Wilson Tennis Racket, Adult"]
    prompt = encoder.prompt(["Everlast Heavy Bag", "Gaiam Yoga Block"], [], 20)
    assert prompt is not None
    question = Question(prompt.ids, tuple(encoder.answer(t) for t in titles))
    scores = {}
    for dtype in (torch.float32, torch.bfloat16):
        scorer = Scorer(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(), 0)
        scores[dtype] = scorer.score([question])[0]
        assert scorer.method == "packed"
    assert scores[torch.bfloat16].dtype == np.float64
    per_token = (scores[torch.bfloat16] - scores[torch.float32]) / [len(a) for a in question.answers]
    assert 0 < np.abs(per_token).max() < TOLERANCE, per_token
