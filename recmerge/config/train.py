"""Settings of `train`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from recmerge.config.loader import Settings
from recmerge.config.prompt import PromptConfig


class LoraConfig(Settings):
    """The adapter's shape; defaults are WeaveRec's."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: str | list[str] = Field("all-linear", description="all-linear, or module names")
    use_rslora: bool = False
    init_seed: int = Field(0, ge=0, description="of A's initialisation: the same for all adapters that will be merged")


class RankerConfig(Settings):
    """Another ranker than a LoRA, and settings of its own, which it checks itself."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.model_extra or {})


class TrainConfig(Settings):
    """Settings of `recmerge train`."""

    base: str = Field("nano", description="the shipped base's name, a `base pretrain` run, a folder or a Hugging Face id")
    revision: str | None = Field(None, description="of a Hugging Face base")
    trust_remote_code: bool = False
    ranker: RankerConfig | None = Field(None, description="train this ranker instead of a LoRA: its name, or name and settings")
    prompt: PromptConfig = PromptConfig()
    lora: LoraConfig = LoraConfig()
    buyers: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="train on the rows of this many buyers of a domain, by its name; the others stay whole"
    )
    max_rows: int | None = Field(None, ge=1, description="training rows used, the first by the data's own seeded order; null: all")
    epochs: float | None = Field(None, gt=0, description="passes over the sequences; give this or steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps; give this or epochs")
    batch_size: int = Field(128, ge=1, description="sequences per optimiser step, over all processes")
    micro_batch_size: int = Field(2, ge=1, description="sequences per forward pass and process")
    learning_rate: float = Field(2e-4, gt=0)
    scheduler: str = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    save_every: int = Field(50, ge=1, description="steps between checkpoints, where there is no patience")
    patience: int | None = Field(None, ge=1, description="evaluations in a row without a lower validation loss that end training; null: no validation")
    eval_every: int = Field(50, ge=1, description="with patience: steps between evaluations, and between checkpoints")
    eval_buyers: int = Field(500, ge=1, description="with patience: validation events of each domain that an evaluation reads")
    keep_checkpoints: bool = Field(False, description="keep the checkpoints of a complete run")
    zero_loss_steps: int = Field(5, ge=1, description="stop when the loss is exactly 0 this often in a row")
    seed: int = Field(42, ge=0, description="of batch order and dropout")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sft: dict[str, Any] = Field(default_factory=dict, description="passed on to trl.SFTConfig as it is")

    @field_validator("ranker", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _length_of_training(self) -> "TrainConfig":
        if self.ranker is None and (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self
