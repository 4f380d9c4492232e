"""Settings of `data build` and `data mix`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from recmerge.config.loader import Settings


def _seconds(value: Any) -> Any:
    """Read a date as seconds since 1970; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("write a UTC date such as 2013-06-01, or seconds since 1970") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


Moment = Annotated[int, BeforeValidator(_seconds), Field(ge=0, le=253_402_300_799)]  # to the end of the year 9999


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
    reviews: str | None = Field(None, json_schema_extra={"path": True}, description="amazon*: reviews_*_5.json.gz, *_5.json.gz, *.csv.gz, *.jsonl.gz")
    meta: str | None = Field(None, json_schema_extra={"path": True}, description="amazon*: meta_*.json.gz or meta_*.jsonl.gz")
    archive: str | None = Field(None, json_schema_extra={"path": True}, description="movielens: ml-1m.zip or another size, as it is")
    testdata: str | None = Field(
        None, json_schema_extra={"path": True}, description="published_testdata: a file of the published testdata folder, chat messages as JSON lines"
    )
    columns: ColumnsConfig = ColumnsConfig()
    profile: Literal["clean", "published"] = Field("clean", description="published: the published WeaveRec code, point by point")
    split: Literal["leave_one_out", "time"] = Field("leave_one_out", description="time: what lies after two points in time is held out, for every user")
    valid_share: float = Field(0.1, gt=0, lt=1, description="time: share of the events in the validation period")
    test_share: float = Field(0.1, gt=0, lt=1, validate_default=True, description="time: share of the events in the test period, the last")
    valid_from: Moment | None = Field(None, description="time: where validation begins, a UTC date or seconds since 1970, in place of the shares")
    test_from: Moment | None = Field(None, validate_default=True, description="time: where the test begins, later than valid_from")
    k_core: int = Field(5, ge=1, description="least events of every user and item, applied until it holds for all")
    users: int | None = Field(None, ge=1, description="a seeded sample of this many users, drawn before the k-core; null: all")
    n_candidates: int = Field(30, ge=2, description="candidates per user: the target and the negatives")
    tie_break: Literal["item_id", "hash"] = "item_id"
    max_rows: int | None = Field(None, ge=1, description="training rows kept, by the seed; null: all (published: 30,000)")
    max_title_chars: int = Field(512, ge=16, description="longer titles are cut and marked with an ellipsis")
    seed: int = Field(42, ge=0)
    max_bad: float = Field(0.001, ge=0, le=1, description="share of input lines that may be unusable; they are put aside in rejects.jsonl")

    @field_validator("split")
    @classmethod
    def _split_of_the_profile(cls, split: str, info: ValidationInfo) -> str:
        if split == "time" and info.data.get("profile") == "published":
            raise ValueError("the published code knows leave_one_out alone; build the clean profile")
        return split

    @field_validator("test_share")
    @classmethod
    def _shares_leave_something(cls, share: float, info: ValidationInfo) -> float:
        if share + info.data.get("valid_share", 0) >= 1:
            raise ValueError(f"with valid_share {info.data['valid_share']} nothing is left to train on; together they must be below 1")
        return share

    @field_validator("test_from")
    @classmethod
    def _cuts_fit(cls, test_from: int | None, info: ValidationInfo) -> int | None:
        valid_from = info.data.get("valid_from")
        if (valid_from is None) != (test_from is None):
            raise ValueError("valid_from and test_from are set together or not at all")
        if valid_from is not None and test_from is not None and not valid_from < test_from:
            raise ValueError("test_from must be later than valid_from")
        if test_from is not None and info.data.get("split") == "leave_one_out":
            raise ValueError("valid_from and test_from belong to split: time, and the split is leave_one_out")
        return test_from


class MixConfig(Settings):
    """Settings of `recmerge data mix`."""

    cap: int = Field(40_000, ge=1, description="rows of each domain at most")
    caps: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="other caps for single domains, by name; for ratios other than one to one"
    )
    union: bool = Field(False, description="all domains in one set instead of one hybrid per source")
    seed: int = Field(42, ge=0)
