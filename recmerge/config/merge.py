"""Settings of `merge`."""

from typing import Literal

from pydantic import Field

from recmerge.config.loader import Settings


class MergeConfig(Settings):
    """Settings of `recmerge merge`; give adapters, or a target with its sources."""

    adapters: list[str] = Field(default_factory=list, description="run names, name@vNNN, or adapter folders")
    target: str | None = Field(None, description="find the adapters: this domain's own and its hybrid with each source")
    sources: list[str] = Field(default_factory=list, description="the target's sources")
    weights: list[float] | None = Field(None, description="one per adapter; null: equal, summing to one")
    method: str = Field("weaverec", description="a name of recmerge.merging.METHODS")
    rank_out: str = Field("cat", pattern=r"^(cat|fold|svd:[1-9][0-9]*)$", description="cat: exact, ranks add up; svd:R: best rank R; fold: into the base model")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(None, description="of the result; null: float32 for an adapter, the base's own for fold")
    base: str | None = Field(None, description="the base model of fold; null: the one the adapters name")
    allow_base_mismatch: bool = False
