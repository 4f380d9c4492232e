"""The points of a grid: every seed with every combination of the matrix' values."""

import itertools
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from recmerge.config.yaml_file import parse_scalar

SEED = "train.seed"


@dataclass(frozen=True)
class Point:
    """One combination of settings.

    Args:
        settings: Value by dotted key, the stage first, e.g. "train.lora.rank".
        varied: Keys with more than one value in the grid: only these show in names.
        first_seed: The grid's first seed of training, which goes unnamed in runs: a grid of one seed shares them with one of more.
    """

    settings: Mapping[str, Any]
    varied: frozenset[str]
    first_seed: int | None = None

    def overrides(self, stage: str) -> dict[str, Any]:
        """Return this point's settings of a stage, without the stage's name."""
        return {key.partition(".")[2]: value for key, value in self.settings.items() if key.startswith(stage + ".")}

    def with_seed(self, seed: int) -> "Point":
        """Return this point with another seed of training."""
        return replace(self, settings={**self.settings, SEED: seed}, varied=self.varied | {SEED})

    def without_seed(self) -> "Point":
        """Return this point for what is made of several seeds."""
        return replace(self, settings={k: v for k, v in self.settings.items() if k != SEED})

    def labels(self) -> dict[str, str]:
        """Return what an evaluation is labelled with: the point, what varies apart from the seed as JSON, and the seed where one is set."""
        varied = {k: v for k, v in self.settings.items() if k in self.varied and k != SEED}
        seed = {"seed": str(self.settings[SEED])} if SEED in self.settings else {}
        return {"point": self.label(), "group": self.without_seed().label(), "settings": json.dumps(varied), **seed}

    def suffix(self, stages: Collection[str], *, every_seed: bool = False) -> str:
        """Return what a run's name ends in so that points that differ in these stages differ in name."""
        plain = () if every_seed or self.first_seed is None else ((SEED, self.first_seed),)
        shown = [k for k, value in self.settings.items() if k in self.varied and k.partition(".")[0] in stages and (k, value) not in plain]
        return "".join(f"-{self._short(key)}{'-' if isinstance(self.settings[key], str) else ''}{_word(self.settings[key])}" for key in shown)

    def label(self) -> str:
        """Return the varied settings for a table, e.g. "lora.rank=8 seed=1"; empty for a grid of one point."""
        return " ".join(f"{key.partition('.')[2] if key == SEED else key}={value}" for key, value in self.settings.items() if key in self.varied)

    def _short(self, key: str) -> str:
        last = key.rpartition(".")[2]
        same = [k for k in self.varied if k.rpartition(".")[2] == last]
        return last if len(same) == 1 else key


def points(seeds: Collection[int], matrix: Mapping[str, Collection[Any]]) -> list[Point]:
    """List a grid's points.

    Args:
        seeds: Seeds of training; empty: none is set.
        matrix: Values by dotted key.

    Returns:
        One point at least; seeds vary fastest.
    """
    axes: dict[str, list[Any]] = {key: list(values) for key, values in matrix.items()}
    if seeds:
        axes[SEED] = list(seeds)
    varied = frozenset(key for key, values in axes.items() if len(values) > 1)
    first = next(iter(seeds), None)
    return [Point(dict(zip(axes, values, strict=True)), varied, first) for values in itertools.product(*axes.values())]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted ones; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def set_words(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as `--set key=value` words that read back as the same values."""
    return [word for key, value in flatten(settings).items() for word in ("--set", f"{key}={_scalar(value)}")]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and parse_scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _word(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-")
