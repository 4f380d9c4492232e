"""Settings of `data build` and `data mix`."""

from typing import Annotated, Literal

from pydantic import Field

from recmerge.config.loader import Settings


class ColumnsConfig(Settings):
    """Which column of a table holds what."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str | None = "timestamp"
    title: str = "title"
    brand: str | None = None
    category: str | None = None


class BuildConfig(Settings):
    """Settings of `recmerge data build`; paths may hold `{domain}`."""

    source: str = Field("table", description="a name of recmerge.data.sources.SOURCES")
    interactions: str | None = Field(None, json_schema_extra={"path": True}, description="table: CSV, TSV, Parquet or JSON lines, also gzipped")
    items: str | None = Field(None, json_schema_extra={"path": True}, description="table: item_id and title, brand and category where known")
    reviews: str | None = Field(None, json_schema_extra={"path": True}, description="amazon2014: reviews_*_5.json.gz")
    meta: str | None = Field(None, json_schema_extra={"path": True}, description="amazon2014: meta_*.json.gz")
    archive: str | None = Field(None, json_schema_extra={"path": True}, description="movielens: ml-1m.zip as it is")
    columns: ColumnsConfig = ColumnsConfig()
    profile: Literal["clean", "published"] = Field("clean", description="published: the published WeaveRec code, point by point")
    split: Literal["leave_one_out"] = "leave_one_out"
    k_core: int = Field(5, ge=1, description="least events of every user and item, applied until it holds for all")
    users: int | None = Field(None, ge=1, description="a seeded sample of this many users, drawn before the k-core; null: all")
    n_candidates: int = Field(30, ge=2, description="candidates per user: the target and the negatives")
    tie_break: Literal["item_id", "hash"] = "item_id"
    max_rows: int | None = Field(None, ge=1, description="training rows kept, by the seed; null: all (published: 30,000)")
    max_title_chars: int = Field(512, ge=16, description="longer titles are cut and marked with an ellipsis")
    seed: int = Field(42, ge=0)
    max_bad: float = Field(0.001, ge=0, le=1, description="share of input lines that may be unusable; they are put aside in rejects.jsonl")


class MixConfig(Settings):
    """Settings of `recmerge data mix`."""

    cap: int = Field(40_000, ge=1, description="rows of each domain at most")
    caps: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="other caps for single domains, by name; for ratios other than one to one"
    )
    union: bool = Field(False, description="all domains in one set instead of one hybrid per source")
    seed: int = Field(42, ge=0)
