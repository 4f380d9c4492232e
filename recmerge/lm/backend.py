"""What asks a language model: through transformers here, through vLLM in `vllm_backend`; rankers need not know which."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from recmerge.lm.constrained import Choices, generate_choices
from recmerge.lm.encoding import Encoder
from recmerge.lm.generation import generate_answers
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question


class Backend(Protocol):
    """Scores answers and writes them.

    Args:
        name: What ran, for the manifest.
        device: Where the model is; on a CPU batches of users are scored side by side.
        method: How answers are scored; None until the first question.
        difference: From the definition, on the first question, in nats; None where it was not measured.
    """

    name: str
    device: torch.device
    method: Any
    difference: Any

    def prepare(self, question: Question) -> None:
        """Get ready by a first question, before scoring on several cores at once."""

    def score(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """Return per question the log-likelihoods (C,) of its answers in nats; equal answers get equal ones to the bit."""

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return what the model writes after each prompt, greedily."""

    def choose(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[str]], beams: int) -> list[list[tuple[str, ...]]]:
        """Let the model write only what is a candidate.

        Args:
            prompts: Token ids.
            candidates: Each prompt's titles.
            beams: Of the search; 1 is greedy.

        Returns:
            Per prompt the titles named, best first; titles that are alike in tokens share a place.
        """


class TransformersBackend(Scorer):
    """A model of transformers, in this process.

    Args:
        model: A causal language model or a peft model on one, in eval mode.
        encoder: Its tokenizer and prompt settings.
    """

    name = "transformers"

    def __init__(self, model: Any, encoder: Encoder) -> None:
        super().__init__(model, pad_id=encoder.end_id)
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """Return what the model writes after each prompt, greedily."""
        return generate_answers(self.model, self.encoder.tokenizer, prompts, max_new_tokens)

    def choose(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[str]], beams: int) -> list[list[tuple[str, ...]]]:
        """Let the model write only what is a candidate; in the published style that is five titles, and the best beam alone counts."""
        choices = [Choices(titles, self.encoder) for titles in candidates]
        written = generate_choices(self.model, prompts, choices, beams)
        return [choice.named(beams_of) for choice, beams_of in zip(choices, written, strict=True)]
