"""Settings of `eval`."""

from pydantic import Field

from recmerge.config.loader import Settings


class GateConfig(Settings):
    """What `--gate` demands."""

    max_malformed: float = Field(0.05, ge=0, le=1, description="share of users with malformed or off-list output")
    metric: str = "ndcg@1"
    min_value: float | None = Field(None, ge=0, le=1, description="the metric must reach this")
    no_worse: bool = Field(True, description="with a baseline: fail where the run is significantly worse on the metric")


class EvalConfig(Settings):
    """Settings of `recmerge eval`."""

    runs: list[str] = Field(default_factory=list)
    baseline: str | None = None
    ks: list[int] = Field([1, 3, 5], min_length=1)
    n_bootstrap: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(42, ge=0)
    gate: GateConfig = GateConfig()
