"""Settings of `infer`."""

from typing import Any, Literal

from pydantic import Field

from recmerge.config.loader import Settings
from recmerge.config.prompt import PromptConfig

_AS_BEFORE: dict[str, Any] = {
    **{"candidates": "stored", "order_seed": None, "normalize": "sum"},
    **{"constrained": False, "beams": 1, "backend": "transformers", "vllm": {}},
}


class InferConfig(Settings):
    """Settings of `recmerge infer`."""

    adapter: str | None = Field(None, description="run name, path, or none for the base alone")
    ranker: str | None = None
    base: str | None = Field(None, description="null: the base the adapter was trained on; needed with `--adapter none`")
    revision: str | None = None
    trust_remote_code: bool = False
    mode: Literal["score", "generate"] = "score"
    split: Literal["test", "valid"] = "test"
    candidates: Literal["stored", "popular", "similar", "all"] = Field(
        "stored",
        description="popular: negatives by training events; similar: titled like the target; all: the catalogue, for rankers that can and open prompts",
    )
    order_seed: int | None = Field(
        None, ge=0, description="put every list in another seeded order before it is asked: a listwise prompt may prefer places; null: as stored"
    )
    normalize: Literal["sum", "mean", "pmi", "auto"] = Field(
        "sum",
        description="a title's log-likelihood as it is, per token, or less its own without a history; auto: chosen on 500 validation users, see facts",
    )
    users: int | None = Field(None, ge=1, description="rank only the first N users of a seeded order; null: all")
    prompt: PromptConfig | None = Field(None, description="null: the prompt the adapter was trained with, of which single settings can be replaced")
    batch_size: int = Field(16, ge=1, description="users scored together")
    max_new_tokens: int = Field(800, ge=1, description="generate, not constrained: tokens at most, as published")
    constrained: bool = Field(False, description="generate: only the candidates' titles can be written")
    beams: int = Field(1, ge=1, le=1000, description="generate, constrained: beams of the search, each names one title; 1: greedy")
    precision: Literal["fp32", "bf16", "auto"] = Field("fp32", description="auto: bf16 where the hardware multiplies it, else fp32")
    backend: Literal["transformers", "vllm"] = Field("transformers", description="what runs the language model; vllm: pip install 'recmerge[vllm]'")
    vllm: dict[str, Any] = Field(default_factory=dict, description="backend vllm: passed on to vllm.LLM as it is, e.g. tensor_parallel_size")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(42, ge=0)

    def resolved(self) -> dict[str, Any]:
        """Return the settings as JSON-like values; what is at its default is named only where it always was, so that older runs keep their identity."""
        return {key: value for key, value in super().resolved().items() if key not in _AS_BEFORE or value != _AS_BEFORE[key]}
