"""The contract with vLLM 0.33, against a stand-in that takes only what that version takes and answers from a model of transformers."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recmerge.errors import ArtifactError, ResourceError, UsageError
from recmerge.lm import vllm_backend
from recmerge.lm.base import BaseRef
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question
from recmerge.lm.vllm_backend import VllmBackend

# Of vllm.LLM (named, then passed on to vllm.EngineArgs), version 0.33.0: those that may be of use here.
LLM_OPTIONS = {"revision", "trust_remote_code", "dtype", "seed", "tensor_parallel_size", "gpu_memory_utilization", "enforce_eager"}
ENGINE_OPTIONS = {"enable_prefix_caching", "enable_lora", "max_lora_rank", "max_loras", "max_model_len", "logprobs_mode"}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@dataclass
class StructuredOutputsParams:
    choice: list[str] | None = None


@dataclass
class SamplingParams:
    """The fields of vllm.SamplingParams that are used here, with their defaults."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    logprob_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    stop_token_ids: list[int] | None = None
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        assert self.logprob_token_ids is None or 0 < len(self.logprob_token_ids) <= 128


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class FakeLLM:
    """Answers as vllm.LLM does; keeps what it was asked."""

    model: str
    options: dict[str, Any]
    calls: list[tuple[list[dict[str, list[int]]], list[SamplingParams], Any]] = field(default_factory=list)

    answers_from: Any = None
    tokenizer: Any = None

    def generate(self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True, lora_request: Any = None) -> list[Any]:
        assert len(prompts) == len(sampling_params) > 0
        assert use_tqdm is False
        self.calls.append((prompts, sampling_params, lora_request))
        return [SimpleNamespace(outputs=[self._answer(p["prompt_token_ids"], s)]) for p, s in zip(prompts, sampling_params, strict=True)]

    @torch.inference_mode()
    def _answer(self, ids: list[int], params: SamplingParams) -> Any:
        assert all(type(i) is int for i in ids)
        assert params.temperature == 0.0
        logs = torch.log_softmax(self.answers_from(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)
        if params.structured_outputs:
            text = params.structured_outputs.choice[-1]
            assert params.max_tokens > len(self.tokenizer(text)["input_ids"])
            return SimpleNamespace(text=text, logprobs=None)
        best = int(logs.argmax())
        if params.logprob_token_ids is None:
            return SimpleNamespace(text=f" {self.tokenizer.decode(best)} ", logprobs=None)
        assert params.max_tokens == 1
        return SimpleNamespace(text="", logprobs=[{t: SimpleNamespace(logprob=float(logs[t]), rank=1) for t in {best, *params.logprob_token_ids}}])


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).eval()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[FakeLLM]:
    """Put the stand-in where vLLM would be; gives the engines that are made."""
    engines: list[FakeLLM] = []

    def new(*, model: str, **options: Any) -> FakeLLM:
        assert set(options) <= LLM_OPTIONS | ENGINE_OPTIONS
        if options.get("max_model_len") == 0:
            raise ValueError("no room for\nany token")
        engines.append(FakeLLM(model, options, answers_from=answering, tokenizer=tokenizer))
        return engines[-1]

    answering = model
    parts = {
        "vllm": {"__version__": "0.33.0", "LLM": new},
        "vllm.sampling_params": {"SamplingParams": SamplingParams, "StructuredOutputsParams": StructuredOutputsParams},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_backend, "find_spec", lambda name: name)
    return engines


def new_backend(tokenizer: PreTrainedTokenizerFast, adapter: Path | None = None, style: str = "listwise", **options: Any) -> VllmBackend:
    return VllmBackend(BaseRef("some/base", "some/base", "abc"), adapter, Encoder(tokenizer, PromptSettings(style, 500)), "bf16", options)


def questions(n_answers: int = 6) -> list[Question]:
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int, vocabulary: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(3, vocabulary, rng.integers(low, high)))

    return [Question(tokens(5, 20, 90), (*((*tokens(1, 6, 9), 2) for _ in range(n_answers)), (7, 2), (7, 8, 2), (7, 2))) for _ in range(3)]


def test_scores_are_those_of_transformers(made: list[FakeLLM], model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = new_backend(tokenizer)
    got = asking.score(questions())
    for mine, want in zip(got, Scorer(model, 0).score(questions()), strict=True):
        np.testing.assert_allclose(mine, want, atol=1e-4)
        assert mine[-1] == mine[-3]  # equal answers, to the bit
    assert (asking.method, asking.difference, asking.name) == ("vllm", None, "vllm 0.33.0")


def test_prompts_are_read_before_the_titles_and_each_beginning_is_asked_once(made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast) -> None:
    asked = questions()
    new_backend(tokenizer).score(asked)
    (first, _, _), (rest, params, _) = made[0].calls
    assert [p["prompt_token_ids"] for p in first] == [list(q.prompt) for q in asked]
    texts = [tuple(p["prompt_token_ids"]) for p in rest]
    assert len(set(texts)) == len(texts)
    assert sum(len(p.logprob_token_ids) for p in params) + len({(i, a[0]) for i, q in enumerate(asked) for a in q.answers}) == len(
        {(i, a[:n]) for i, q in enumerate(asked) for a in q.answers for n in range(1, len(a) + 1)}
    )
    assert {p.prompt_logprobs for p in params} == {None}  # with it vLLM would read no cached prefix
    assert made[0].options["enable_prefix_caching"] is True


def test_more_tokens_than_a_request_may_ask_for_are_split(made: list[FakeLLM], model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    question = Question((5, 6, 7), tuple((token,) for token in range(3, 253)))
    got = new_backend(tokenizer).score([question])[0]
    assert [len(p.logprob_token_ids) for p in made[0].calls[0][1]] == [128, 122]
    np.testing.assert_allclose(got, Scorer(model, 0).score([question])[0], atol=1e-4)


def test_one_token_answers_are_one_request_a_user(made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast) -> None:
    new_backend(tokenizer, style="index").score([Question((5, 6), ((10,), (11,), (12,)))])
    assert len(made[0].calls) == 1
    assert [p.logprob_token_ids for p in made[0].calls[0][1]] == [[10, 11, 12]]


def write_adapter(folder: Path, rank: int, **more: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 32, **more}))
    return folder


@pytest.mark.parametrize(("rank", "pattern", "room"), [(16, {}, 16), (48, {}, 64), (8, {"q_proj": 20}, 32)])
def test_an_adapter_goes_with_every_request(
    made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path, rank: int, pattern: Any, room: int
) -> None:
    folder = write_adapter(tmp_path / "a", rank, rank_pattern=pattern)
    asking = new_backend(tokenizer, folder, tensor_parallel_size=2)
    assert asking.write([[5, 6]], 9) == [asking.write([[5, 6]], 9)[0].strip()]
    engine = made[0]
    want = {"enable_lora": True, "max_lora_rank": room, "max_loras": 1, "dtype": "bfloat16", "revision": "abc", "tensor_parallel_size": 2}
    assert want.items() <= engine.options.items()
    assert engine.model == "some/base"
    _, params, lora = engine.calls[0]
    assert lora == LoRARequest("adapter", 1, str(folder))
    assert (params[0].max_tokens, params[0].stop_token_ids) == (9, [2])


def test_without_an_adapter_there_is_no_lora(made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast) -> None:
    new_backend(tokenizer).score(questions())
    assert "enable_lora" not in made[0].options
    assert {lora for _, _, lora in made[0].calls} == {None}


def test_choices_are_the_candidates(made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast) -> None:
    asking = new_backend(tokenizer)
    assert asking.choose([[5], [6]], [["Mat", "Ball", "Mat"], ["Café"]], 1) == [[("Ball",)], [("Café",)]]
    params = made[0].calls[0][1]
    assert [p.structured_outputs.choice for p in params] == [["Mat", "Ball"], ["Café"]]
    for style, beams in (("listwise", 2), ("published", 1)):
        with pytest.raises(UsageError, match="cannot be asked of backend vllm"):
            new_backend(tokenizer, style=style).choose([[5]], [["Mat"]], beams)


def test_what_goes_wrong_is_one_line(made: list[FakeLLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="vllm cannot load base 'some/base': no room for any token"):
        new_backend(tokenizer, max_model_len=0)
    with pytest.raises(UsageError, match=r"vllm\.max_loras is set by recmerge"):
        new_backend(tokenizer, max_loras=3)
    with pytest.raises(ArtifactError, match="rank 600, vllm takes 512 at most"):
        new_backend(tokenizer, write_adapter(tmp_path / "big", 600))
    with pytest.raises(ArtifactError, match=r"adapter_config.json cannot be read"):
        new_backend(tokenizer, tmp_path / "nothing")


def test_without_vllm_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    monkeypatch.setattr(vllm_backend, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed here") as caught:
        new_backend(tokenizer)
    assert "pip install 'recmerge[vllm]'" in caught.value.fix
