"""Settings that sequential models share."""

from typing import Literal

from pydantic import Field, model_validator

from recmerge.rankers.protocol import RankerSettings
from recmerge.rankers.sequential.training import Clock, Schedule, now

_MINUTE = 60.0


class TaughtSettings(RankerSettings):
    """What all models have in common that are taught by steps."""

    max_history: int = Field(50, ge=1, description="purchases read at most, the newest")
    dropout: float = Field(0.2, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(256, ge=1, description="rows of a step")
    epochs: int = Field(200, ge=1, description="at most")
    epoch_steps: int | None = Field(None, ge=1, description="steps of an epoch at most; null: as many as pass over every row")
    patience: int = Field(10, ge=1, description="evaluations in a row without a better NDCG@10 of validation users that end training")
    eval_every: int = Field(1, ge=1, description="epochs between evaluations")
    eval_users: int = Field(2000, ge=1, description="validation users that an evaluation asks")
    eval_items: Literal["candidates", "catalogue"] = Field(
        "candidates", description="what they rank: their stored candidates, or every item they have not bought"
    )
    minutes: float | None = Field(None, gt=0, description="of training at most; null: no limit. With one, equal seeds repeat on a machine of equal speed only")
    clock: Clock = Field(
        "wall", description="what `minutes` count: time that passes, or processor time of all threads, which other work on the machine does not use up"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def schedule(self, epochs: int | None = None) -> Schedule:
        """Return how long and how fast to train, with another number of epochs where one is given."""
        same = ("batch_size", "learning_rate", "weight_decay", "patience", "eval_every", "max_history", "epoch_steps", "clock")
        more = {key: getattr(self, key) for key in same}
        seconds = None if self.minutes is None else self.minutes * _MINUTE
        return Schedule(epochs=epochs or self.epochs, seconds=seconds, whole_catalogue=self.eval_items == "catalogue", **more)

    def deadline(self, share: float = 1.0) -> float | None:
        """Return when a share of the minutes, from now on, is over by the clock; None: there is no limit."""
        return None if self.minutes is None else now(self.clock) + share * self.minutes * _MINUTE

    def part_way(self, share: float, end: float | None) -> float | None:
        """Return when a share of the time from now to an end is over; None: there is no end."""
        begun = now(self.clock)
        return None if end is None else begun + share * (end - begun)


class SoftmaxSettings(TaughtSettings):
    """What models have in common that learn by a softmax over items."""

    negatives: int = Field(0, ge=0, description="where a softmax is learnt from: items drawn anew for each step; 0: the whole catalogue")


class SequentialSettings(TaughtSettings):
    """What all models have in common whose items have vectors of a width of their own."""

    width: int = Field(64, ge=1, description="of an item's vector")


class RowsSettings(SoftmaxSettings, SequentialSettings):
    """What models have in common that can answer at every place of a history at once."""

    rows: Literal["buyers", "purchases"] = Field(
        "buyers", description="of a step: buyers, each asked after every purchase; or purchases, each asked at the end of what was bought before it"
    )

    @property
    def every_place(self) -> bool:
        """Whether a row asks a question at every place."""
        return self.rows == "buyers"


class TransformerSettings(SequentialSettings):
    """Size of a transformer."""

    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1, description="of each block; must divide the width")
    inner: int = Field(256, ge=1, description="width inside the feed-forward layers")

    @model_validator(mode="after")
    def _heads_fit(self) -> "TransformerSettings":
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        return self
