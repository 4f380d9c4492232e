"""A causal language model inside a ranker: its base is fixed, and only a LoRA on it is taught and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from recmerge.errors import ArtifactError
from recmerge.lm.base import BaseRef, base_card, find, fingerprint, load_model, load_tokenizer
from recmerge.lm.device import pick_device
from recmerge.lm.encoding import Encoder, PromptSettings, Style
from recmerge.rankers.protocol import TRAIN_AGAIN
from recmerge.rankers.sequential.ranker import TaughtRanker
from recmerge.rankers.sequential.settings import TaughtSettings

_INNERMOST = ".default.weight"  # of a LoRA matrix's name in peft


class LanguageSettings(TaughtSettings):
    """Which language model, and the LoRA on it."""

    base: str = Field("nano", description="the shipped base's name, a folder or a Hugging Face id")
    revision: str | None = Field(None, description="of a Hugging Face base")
    trust_remote_code: bool = False
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the base's weights")
    rank: int = Field(8, ge=1)
    alpha: float = Field(16, gt=0)
    target_modules: str | list[str] = Field("all-linear", description="all-linear, or module names")
    max_title_tokens: int = Field(40, ge=1, description="longer titles are cut")
    max_history: int = Field(10, ge=1, description="purchases read at most, the newest")
    batch_size: int = Field(32, ge=1, description="rows of a step")
    epoch_steps: int | None = Field(200, ge=1, description="steps of an epoch at most; null: as many as pass over every row")
    eval_users: int = Field(500, ge=1, description="validation users that an evaluation asks")

    def found_base(self) -> BaseRef:
        """Return the base."""
        return find(self.base, self.revision, self.trust_remote_code)


@dataclass(frozen=True)
class Held:
    """What a model uses and neither trains nor saves.

    Args:
        model: A peft model.
        decoder: Below its output layer.
        encoder: Turns titles into tokens.
    """

    model: Any
    decoder: Any
    encoder: Encoder


class TunedLm(nn.Module):
    """A language model of which the module knows the LoRA alone: nothing else is trained, copied or saved.

    Args:
        settings: Which model and LoRA.
        style: Of the prompts; None: what the base was made for, if it says so.
        seed: Of the LoRA's first weights.
    """

    def __init__(self, settings: LanguageSettings, style: Style | None, seed: int) -> None:
        from recmerge.lm.lora import new_lora  # peft takes seconds to import

        super().__init__()
        s, base = settings, settings.found_base()
        causal_lm = load_model(base, pick_device(s.device), torch.bfloat16 if s.precision == "bf16" else torch.float32)
        decoder = causal_lm.get_decoder()
        model = new_lora(causal_lm, rank=s.rank, alpha=s.alpha, dropout=s.dropout, target_modules=s.target_modules, use_rslora=False, init_seed=seed)
        longest = getattr(causal_lm.config, "max_position_embeddings", None) or 1 << 20
        style = style or base_card(base.folder).get("prompt", {}).get("style") or "listwise"
        prompt = PromptSettings(style, max_length=longest, max_history=s.max_history, max_title_tokens=s.max_title_tokens)
        self.held = Held(model, decoder, Encoder(load_tokenizer(base), prompt))
        self.lora = nn.ParameterDict({_plain(name): p for name, p in model.named_parameters() if p.requires_grad})

    @property
    def width(self) -> int:
        """D of its hidden states."""
        return int(self.held.model.get_base_model().get_output_embeddings().weight.shape[1])

    def train(self, mode: bool = True) -> "TunedLm":
        """Switch the LoRA's dropout on or off."""
        super().train(mode)
        self.held.model.train(mode)
        return self

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (B, T, D), float32, of texts (B, T) that are padded at their ends with anything."""
        return self.held.decoder(input_ids=ids, use_cache=False).last_hidden_state.float()  # type: ignore[no-any-return]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return (N, V), float32, of last hidden states (N, D)."""
        causal_lm = self.held.model.get_base_model()
        found = causal_lm.get_output_embeddings()(states).float()
        cap = getattr(causal_lm.config, "final_logit_softcapping", None)
        return torch.tanh(found / cap) * cap if cap else found


class LanguageRanker(TaughtRanker):
    """A ranker around a language model, which notes the base that its LoRA belongs to and refuses another.

    Args:
        settings: None: the defaults.
        seed: Of the LoRA's first weights, dropout, negatives and the order of batches.
    """

    settings_class: ClassVar[type[TaughtSettings]] = LanguageSettings
    settings: Any

    def notes(self) -> dict[str, Any]:
        """Return the base's fingerprint."""
        return {"base": fingerprint(self.settings.found_base())}

    def recall(self, card: Mapping[str, Any]) -> None:
        """Refuse a base that is not the one that was trained on.

        Args:
            card: With what `notes` wrote.

        Raises:
            ArtifactError: It is another.
        """
        if card.get("base") != fingerprint(self.settings.found_base()):
            raise ArtifactError(
                f"base '{self.settings.base}' is not the one that ranker '{self.name}' was trained on", fix=f"bring that one back, or {TRAIN_AGAIN}"
            )


def title_words(encoder: Encoder, titles: Sequence[str]) -> torch.Tensor:
    """Encode titles.

    Args:
        encoder: Cuts them to its longest.
        titles: Of I items.

    Returns:
        (I + 1, W) int32 token ids, padded with -1 at their ends; row 0 is the cold item's, empty.
    """
    encoder.learn(titles)
    rows = [encoder.title(title) for title in titles]
    words = torch.full((len(rows) + 1, max(map(len, rows), default=0) or 1), -1, dtype=torch.int32)
    for place, row in enumerate(rows, start=1):
        words[place, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return words


def _plain(name: str) -> str:
    """Return a parameter's name without what peft puts around it, and without dots."""
    return name.removeprefix("base_model.model.").replace(_INNERMOST, "").replace(".", "/")
