"""Settings of `ablate`: a grid of systems, targets, seeds and settings."""

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from recmerge.config.loader import Settings
from recmerge.config.merge import MergeConfig
from recmerge.errors import unknown_name

TARGET_MARK = "{target}"
DOMAIN_MARK = "{domain}"
NO_ADAPTER = "none"
VALID_SUFFIX = "-valid"  # of the name of a ranking of validation events
MATRIX_STAGES = ("mix", "train", "rankers", "merge", "infer")


class StageConfig(Settings):
    """How the commands of one stage are called."""

    config: str | None = Field(None, description="a shipped config or a YAML file; a relative path is read from this YAML's own folder")
    set: dict[str, Any] = Field(default_factory=dict, description="settings on top, as with --set; `a.b: c` or nested")


class DataStageConfig(StageConfig):
    """Which domains are built; `{domain}` in `config` stands for each of them."""

    domains: list[str] = Field(min_length=1)


class MergeSystemConfig(Settings):
    """A merged adapter: of named adapters, or of a target's own and its hybrids with sources."""

    adapters: list[str] | None = Field(None, min_length=1, description="data sets whose adapters are merged, e.g. {target}, {target}_beauty")
    target: str | None = Field(None, description="with sources: {target} merges the target's own adapter and every hybrid")
    sources: list[str] | None = Field(None, description="null: all other domains")
    seeds: list[int] | None = Field(None, min_length=2, description="with one of adapters: a soup of its trainings with these seeds")
    method: str = "weaverec"
    weights: list[float] | None = None
    rank_out: str | None = None
    set: dict[str, Any] = Field(default_factory=dict, description="other settings of merge, as with --set: the method's options, e.g. density: 0.5")

    @field_validator("set")
    @classmethod
    def _known_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = [key for key in value if key in (*cls.model_fields, "allow_base_mismatch", "base")]
        known = ", ".join(["dtype", *MergeConfig().options()])
        if taken:
            raise ValueError(f"'{taken[0]}' is none of the settings that go here: {known}")
        try:
            MergeConfig.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"'{first['loc'][0]}': {first['msg']}; the settings that go here: {known}") from None
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "MergeSystemConfig":
        if (self.adapters is None) == (self.target is None):
            raise ValueError("give either adapters, or target and sources")
        if self.sources is not None and self.target is None:
            raise ValueError("sources go with target")
        if self.seeds is not None and (len(self.adapters or ()) != 1 or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError("seeds make a soup of one adapter, each seed once")
        return self


class FuseConfig(Settings):
    """Other systems of the same YAML made into one ranker, fitted on the validation events."""

    of: list[str] = Field(min_length=2, description="labels of those systems")
    model: Literal["auto", "logit", "network"] | None = Field(None, description="what fuses; null: as eval is set, auto by default")
    fit_users: int | None = Field(None, ge=1, description="fit on the validation events of so many users; null: as many as infer asks on the test events")

    @field_validator("of")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("names a system twice")
        return value


class SystemConfig(Settings):
    """One row of the table: exactly one of adapter, merge, union, ranker and fuse; only a ranker that is trained may go with a union."""

    adapter: str | None = Field(None, description="a data set such as {target} or {target}_beauty, an adapter's path or name@vNNN, or none")
    merge: MergeSystemConfig | None = None
    union: list[str] | None = Field(None, min_length=1, description="one adapter, or with it one ranker, trained on all of these domains together")
    ranker: str | None = None
    fuse: FuseConfig | None = Field(None, description="labels of other systems, or a mapping with `of: [labels]`, model and fit_users")
    base: str | None = Field(None, description="with adapter none: the base model; null: the one that is trained on")
    train: dict[str, Any] = Field(default_factory=dict, description="settings of train for this system alone: its adapters', or its ranker's own")
    set: dict[str, Any] = Field(default_factory=dict, description="settings of infer for this system alone")

    @field_validator("fuse", mode="before")
    @classmethod
    def _list_of_labels(cls, value: Any) -> Any:
        return {"of": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_kind(self) -> "SystemConfig":
        given = [k for k in ("adapter", "merge", "union", "ranker", "fuse") if getattr(self, k) is not None]
        if given == ["union", "ranker"]:
            given = ["ranker"]
        if len(given) != 1:
            raise ValueError(f"give exactly one of adapter, merge, union, ranker and fuse, not {' and '.join(given) or 'none of them'}")
        if self.base is not None and self.adapter != NO_ADAPTER:
            raise ValueError("base goes with adapter: none")
        if self.train and (self.fuse is not None or self.adapter == NO_ADAPTER):
            raise ValueError("train goes with an adapter or a ranker that is trained")
        if self.set and self.fuse is not None:
            raise ValueError("set goes with a system that is ranked by itself; of a fused one it belongs to its parts")
        return self


class AblateConfig(Settings):
    """Settings of `recmerge ablate`."""

    name: str
    data: DataStageConfig
    mix: StageConfig = StageConfig()
    train: StageConfig = StageConfig()
    rankers: dict[str, Any] = Field(default_factory=dict, description="settings of every trained ranker that has them, e.g. minutes: 10")
    infer: StageConfig = StageConfig()
    eval: StageConfig = StageConfig()
    targets: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=list, description="of training; empty: the train config's own")
    systems: dict[str, SystemConfig] = Field(min_length=1)
    baseline: str | None = Field(None, description="the system that all others are compared with")
    matrix: dict[str, list[Any]] = Field(
        default_factory=dict, description="grid over settings of mix, train, rankers, merge or infer, e.g. train.lora.rank: [8, 16]"
    )

    @field_validator("matrix")
    @classmethod
    def _known_stage(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in value.items():
            stage, _, rest = key.partition(".")
            if stage not in MATRIX_STAGES or not rest:
                raise ValueError(f"key '{key}' must be a setting of {', '.join(MATRIX_STAGES)}, e.g. train.lora.rank")
            if not values or len({repr(v) for v in values}) < len(values):
                raise ValueError(f"key '{key}' needs a list of different values")
        return value

    @model_validator(mode="after")
    def _names_fit(self) -> "AblateConfig":
        domains = self.data.domains
        for what, names in (("data.domains", domains), ("targets", self.targets), ("seeds", self.seeds)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names something twice")
        unknown = [t for t in self.targets if t not in domains]
        if unknown:
            raise ValueError(f"target '{unknown[0]}' is none of data.domains: {', '.join(domains)}")
        if self.baseline is not None and self.baseline not in self.systems:
            raise ValueError(f"baseline '{self.baseline}' is none of the systems: {', '.join(self.systems)}")
        slugs = [slug(label) for label in self.systems]
        twice = [s for s in slugs if slugs.count(s) > 1 or not s]
        if twice:
            raise ValueError(f"system labels must differ in their letters and digits: '{twice[0]}'")
        return self

    @model_validator(mode="after")
    def _fusion_fits(self) -> "AblateConfig":
        fused = [label for label, system in self.systems.items() if system.fuse is not None]
        if len(fused) > 1:
            raise ValueError(f"one system of an ablation may be fused, not both '{fused[0]}' and '{fused[1]}'")
        found = self.fusion()
        if found is None:
            return self
        label, fuse = found
        others = [other for other in self.systems if other != label]
        for part in fuse.of:
            if part == label:
                raise ValueError(f"systems.{label}: fuses itself; name other systems")
            if part not in others:
                raise ValueError(f"systems.{label}.fuse: {unknown_name('system', part, others)}")
            if slug(part) + VALID_SUFFIX in map(slug, others):
                raise ValueError(f"system labels must differ by more than '{VALID_SUFFIX}' from '{part}', whose ranking of validation events is called so")
        if self.baseline == label:
            raise ValueError(f"baseline '{label}' is fused; choose a system that is ranked by itself: {', '.join(others)}")
        return self

    def fusion(self) -> tuple[str, FuseConfig] | None:
        """Return the fused system's label and what it is made of; None where no system is fused."""
        return next(((label, system.fuse) for label, system in self.systems.items() if system.fuse is not None), None)


def slug(label: str) -> str:
    """Return a label as part of a run's name: lower case, words joined by '-'."""
    return re.sub(r"[^a-z0-9._]+", "-", label.lower()).strip("-._")
