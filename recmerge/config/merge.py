"""Settings of `merge`."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from recmerge.config.loader import Settings


class MergeConfig(Settings):
    """Settings of `recmerge merge`; give adapters, or a target with its sources.

    The options at the end belong to some methods only; null is the method's default (`recmerge.merging.METHODS`).
    """

    model_config = ConfigDict(populate_by_name=True)

    adapters: list[str] = Field(default_factory=list, description="run names, name@vNNN, or adapter folders")
    target: str | None = Field(None, description="find the adapters: this domain's own and its hybrid with each source")
    sources: list[str] = Field(default_factory=list, description="the target's sources")
    weights: list[float] | None = Field(None, description="one per adapter; null: the method's default, equal and summing to one or 1.0 each")
    method: str = Field("weaverec", description="a name of recmerge.merging.METHODS")
    rank_out: str | None = Field(
        None,
        pattern=r"^(cat|fold|svd:[1-9][0-9]*)$",
        description="cat: exact, ranks add up; svd:R: best rank R; fold: into the base model; null: cat, for full-rank rules svd of the largest rank",
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(None, description="of the result; null: float32 for an adapter, the base's own for fold")
    base: str | None = Field(None, description="the base model of fold; null: the one the adapters name")
    allow_base_mismatch: bool = False
    density: float | None = Field(None, gt=0, le=1, description="the fraction of entries kept, always")
    lambda_: float | None = Field(None, alias="lambda", description="multiplies the merged change")
    trim: Literal["whole", "per_tensor"] | None = Field(None, description="whether density counts over an adapter's whole task vector or each module apart")
    seed: int | None = Field(None, ge=0, description="of what is drawn at random")
    clusters: int | None = Field(None, ge=1, description="the rank of lora_lego's result; null: the adapters' largest rank")

    def resolved(self) -> dict[str, Any]:
        """Return the settings as JSON-like values, by the names that a YAML has."""
        return self.model_dump(mode="json", by_alias=True)

    def options(self) -> dict[str, Any]:
        """Return the methods' options by their names; None where not given."""
        return {"density": self.density, "lambda": self.lambda_, "trim": self.trim, "seed": self.seed, "clusters": self.clusters}
