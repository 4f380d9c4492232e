"""Settings of `eval`."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from recmerge.config.loader import Settings


class GateConfig(Settings):
    """What `--gate` demands of the run that is judged, the first."""

    max_malformed: float = Field(0.05, ge=0, le=1, description="share of users with malformed or off-list output")
    metric: str | None = Field(None, description="one of the metrics that are evaluated; null: the first of them")
    min_value: float | None = Field(None, ge=0, le=1, description="the metric must reach this")
    no_worse: bool = Field(True, description="with a baseline: fail where the run is significantly worse on the metric")
    no_worse_slice: bool = Field(False, description="with a baseline: fail where it is significantly worse in a slice, on the first metric")


class EvalConfig(Settings):
    """Settings of `recmerge eval`."""

    runs: list[str] = Field(default_factory=list, description="infer runs: names, name@vNNN or paths; the first is the one judged")
    baseline: str | None = Field(None, min_length=1, description="the infer run the others are compared with")
    fuse: list[str] = Field(default_factory=list, description="infer runs whose scores are made into one ranker, fitted on validation events")
    fit_on: list[str] = Field(default_factory=list, description="with fuse: rankings of validation events, in its order; empty: found by themselves")
    fusion_model: Literal["auto", "logit", "network"] = Field("auto", description="what fuses; auto: whichever loses less on held-out validation users")
    calibrate: bool = Field(False, description="scores as probabilities: a temperature and a weight of the place, fitted on validation events")
    result_jsonl: str | None = Field(None, json_schema_extra={"path": True}, description="published format: one JSON string of titles per line")
    test_jsonl: str | None = Field(None, json_schema_extra={"path": True}, description="published format: the test line of each result line")
    ks: list[int] = Field([1, 3, 5], min_length=1, description="cut-offs")
    n_bootstrap: int = Field(2000, ge=100)
    seed: int = Field(42, ge=0, description="of the bootstrap")
    gate: GateConfig = GateConfig()

    @field_validator("ks")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError("a cut-off is 1 or more")
        return sorted(set(value))

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> "EvalConfig":
        if (self.result_jsonl is None) != (self.test_jsonl is None):
            raise ValueError("result_jsonl and test_jsonl need each other")
        if self.result_jsonl and (self.runs or self.baseline or self.fuse):
            raise ValueError("give runs, or result_jsonl and test_jsonl, not both")
        if self.result_jsonl and self.calibrate:
            raise ValueError("calibrate (--calibrate) needs runs: a published result file has no scores")
        if len(self.fuse) == 1 or len(set(self.fuse)) < len(self.fuse):
            raise ValueError("fuse (--fuse) takes two runs or more, each once")
        if self.fit_on and len(self.fit_on) != len(self.fuse):
            raise ValueError(f"fit_on (--fit-on) names {len(self.fit_on)} runs, fuse (--fuse) {len(self.fuse)}: give one for each, in the same order")
        if not self.result_jsonl and not self.runs and not self.fuse:
            raise ValueError("give at least one run, or result_jsonl and test_jsonl")
        return self
