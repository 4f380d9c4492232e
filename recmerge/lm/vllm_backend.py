"""A model asked through vLLM, which is installed in an environment of its own.

Written against vLLM 0.33.0. A title's likelihood is asked for as one-token requests, one for each beginning of a title, which return the
log-probabilities of the tokens that follow (`SamplingParams.logprob_token_ids`). Requests of one user begin alike, so prefix caching
reads the prompt once. `prompt_logprobs`, which gives a whole title in one request, would not: vLLM reads no cached prefix for such
requests, since it keeps no logits of what is cached, so that every candidate would pay for its prompt.
"""

import importlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recmerge.errors import ArtifactError, ResourceError, UsageError
from recmerge.lm.base import BaseRef, check_remote_code
from recmerge.lm.encoding import Encoder
from recmerge.lm.precision import Precision, torch_dtype
from recmerge.lm.title_tree import Question

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has room for (vllm.config.lora.MaxLoRARanks)
_MOST_TOKENS = 128  # of one request's logprob_token_ids (vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS)
_HIDDEN_OPTIONS = ("model", "enable_lora", "max_lora_rank", "max_loras", "enable_prefix_caching", "logprobs_mode")

# A beginning of an answer of one question, and tokens that follow it in some answers.
_Place = tuple[int, tuple[int, ...]]


def refuse_missing() -> None:
    """Stop where vLLM is not installed.

    Raises:
        UsageError: It is not.
    """
    if find_spec("vllm") is None:
        raise UsageError(
            "backend vllm needs vllm, not installed here", fix="pip install 'recmerge[vllm]' in an environment with a GPU, or use --backend transformers"
        )


class VllmBackend:
    """A language model in vLLM, with or without a LoRA.

    Args:
        base: Which model.
        adapter: A LoRA's folder in peft's format; None: the model alone.
        encoder: Its tokenizer and prompt settings.
        precision: Of its weights.
        options: More keyword arguments for `vllm.LLM`, such as tensor_parallel_size or max_model_len.

    Raises:
        ArtifactError: vLLM cannot apply the adapter, or the base wants to run its own code.
        ResourceError: vLLM cannot load the model.
        UsageError: vLLM is not installed, or an option is set that this class needs.
    """

    method = "vllm"
    difference = None
    device = torch.device("cuda")  # vLLM batches by itself, so batches of users go one after the other

    def __init__(self, base: BaseRef, adapter: Path | None, encoder: Encoder, precision: Precision, options: Mapping[str, Any]) -> None:
        refuse_missing()
        check_remote_code(base)
        if taken := sorted(set(options) & set(_HIDDEN_OPTIONS)):
            raise UsageError(f"vllm.{taken[0]} is set by recmerge", fix="leave it out")
        rank = None if adapter is None else _rank_of(adapter)
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # its own default is stdout, which is for data
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        self._vllm = importlib.import_module("vllm")
        self._sampling = importlib.import_module("vllm.sampling_params")
        self.name = f"vllm {self._vllm.__version__}"
        self.encoder = encoder
        lora = {} if rank is None else {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
        settings: dict[str, Any] = {
            "revision": base.revision,
            "trust_remote_code": base.trust_remote_code,
            "dtype": str(torch_dtype(precision)).removeprefix("torch."),
            "seed": 0,
            **options,
            **lora,
            "enable_prefix_caching": True,
            "logprobs_mode": "raw_logprobs",
        }
        try:
            self._llm = self._vllm.LLM(model=base.source, **settings)
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            text = " ".join(str(error).split())[:200]
            raise ResourceError(f"vllm cannot load base '{base.ref}': {text}", fix="set vllm.max_model_len or vllm.gpu_memory_utilization") from error
        self._lora = None
        if adapter is not None:
            self._lora = importlib.import_module("vllm.lora.request").LoRARequest("adapter", 1, str(adapter.resolve()))

    def prepare(self, question: Question) -> None:
        """Do nothing: vLLM needs no first question."""

    def score(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """Return per question the log-likelihoods (C,) of its answers in nats; equal answers get equal ones to the bit.

        Prompts are read first, so that the requests for the rest of the titles find them in the cache.
        """
        follow = [_beginnings(question) for question in questions]
        logs: dict[_Place, dict[int, float]] = {}
        for is_first in (True, False):
            asked = [(number, path) for number, tokens in enumerate(follow) for path in sorted(tokens) if is_first == (not path)]
            parts = [(place, part) for place in asked for part in _parts(follow[place[0]][place[1]])]
            params = [self._params(max_tokens=1, logprob_token_ids=part, detokenize=False) for _, part in parts]
            found = self._generate([[*questions[number].prompt, *path] for (number, path), _ in parts], params)
            for (place, part), output in zip(parts, found, strict=True):
                here = output.logprobs[0]
                logs.setdefault(place, {}).update({token: float(here[token].logprob) for token in part})
        return [np.array([_sum(logs, number, answer) for answer in question.answers]) for number, question in enumerate(questions)]

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return what the model writes after each prompt, greedily."""
        params = self._params(max_tokens=max_new_tokens, stop_token_ids=[self.encoder.end_id])
        return [output.text.strip() for output in self._generate(prompts, [params] * len(prompts))]

    def choose(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[str]], beams: int) -> list[list[tuple[str, ...]]]:
        """Let the model write, greedily, only what is a candidate's title; the titles bind as texts, whatever their tokens.

        Args:
            prompts: Token ids.
            candidates: Each prompt's titles.
            beams: 1; vLLM's beam search knows no choices.

        Returns:
            Per prompt the one title named.

        Raises:
            UsageError: More beams, or the published style's lists of titles, are asked for.
        """
        refuse_unguided(self.encoder.settings.style, beams)
        listed = [list(dict.fromkeys(titles)) for titles in candidates]
        params = [
            self._params(
                max_tokens=max(len(title.encode()) for title in titles) + 1,  # a token is a byte at least
                stop_token_ids=[self.encoder.end_id],
                structured_outputs=self._sampling.StructuredOutputsParams(choice=titles),
            )
            for titles in listed
        ]
        texts = [output.text.strip() for output in self._generate(prompts, params)]
        return [[(text,)] if text in titles else [] for text, titles in zip(texts, listed, strict=True)]

    def _params(self, **settings: Any) -> Any:
        return self._sampling.SamplingParams(temperature=0.0, **settings)

    def _generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [found.outputs[0] for found in self._llm.generate(asked, list(params), use_tqdm=False, lora_request=self._lora)]


def refuse_unguided(style: str, beams: int) -> None:
    """Stop where vLLM cannot keep an answer to the candidates.

    Args:
        style: Of the prompt.
        beams: Of the search.

    Raises:
        UsageError: It cannot.
    """
    if beams > 1 or style == "published":
        what = f"beams={beams}" if beams > 1 else "prompt.style=published, an answer of several titles,"
        raise UsageError(f"constrained=true: {what} cannot be asked of backend vllm, which chooses one title greedily", fix="use --backend transformers")


def _beginnings(question: Question) -> dict[tuple[int, ...], dict[int, None]]:
    """Return every beginning of the answers, the empty one too, with the tokens that follow."""
    found: dict[tuple[int, ...], dict[int, None]] = {}
    for answer in question.answers:
        for at, token in enumerate(answer):
            found.setdefault(answer[:at], {})[token] = None
    return found


def _parts(tokens: Mapping[int, None]) -> list[list[int]]:
    ids = list(tokens)
    return [ids[start : start + _MOST_TOKENS] for start in range(0, len(ids), _MOST_TOKENS)]


def _sum(logs: Mapping[_Place, Mapping[int, float]], number: int, answer: tuple[int, ...]) -> float:
    return math.fsum(logs[number, answer[:at]][token] for at, token in enumerate(answer))


def _rank_of(adapter: Path) -> int:
    """Return the least rank that vLLM has and the adapter fits in."""
    path = adapter / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank = max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix="restore that file or copy the adapter again") from error
    for known in _RANKS:
        if rank <= known:
            return known
    raise ArtifactError(
        f"adapter {adapter} has rank {rank}, vllm takes {_RANKS[-1]} at most",
        fix=f"merge it with --rank-out svd:{_RANKS[-1]} or fold, or use --backend transformers",
    )
