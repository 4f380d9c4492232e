"""Cut the bundled sample out of the real Amazon 2014 tables.

usage: make_sample.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds <domain>/interactions.csv.gz and items.csv.gz. The rule, per domain: leave out users with an unknown time; then, round
after round, leave out the 5 % of users whose items are the least popular (mean of log events per item; equal scores by a hash of the user
id) and take the 5-core of what is left, until at most N_USERS users are left. Users become numbers in a hashed order of their ids, another
range per domain, so that one person in two domains cannot be found. The same source gives the same bytes.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import polars as pl

DOMAINS = ("sports", "beauty", "toys")
N_USERS = 4500
SHARE = 0.05


def five_core(events: pl.DataFrame) -> pl.DataFrame:
    while True:
        height = events.height
        events = events.filter(pl.len().over("user_id") >= 5).filter(pl.len().over("item_id") >= 5)
        if events.height == height:
            return events


def hashed(domain: str, user: str) -> str:
    return hashlib.sha256(f"recmerge sample {domain} {user}".encode()).hexdigest()


def densest(events: pl.DataFrame, domain: str) -> pl.DataFrame:
    events = five_core(events.filter(pl.col("timestamp").is_not_null().all().over("user_id")))
    while (n_users := events["user_id"].n_unique()) > N_USERS:
        popularity = pl.len().over("item_id").log()
        scores = events.with_columns(popularity.alias("p")).group_by("user_id").agg(pl.col("p").sort().mean().round(9))
        scores = scores.with_columns(pl.col("user_id").map_elements(lambda u: hashed(domain, u), return_dtype=pl.String).alias("h")).sort("p", "h")
        n_out = min(max(1, int(n_users * SHARE)), n_users - N_USERS)
        events = five_core(events.filter(~pl.col("user_id").is_in(scores["user_id"].head(n_out).implode())))
    return events


def numbered(events: pl.DataFrame, domain: str) -> pl.DataFrame:
    users = sorted(events["user_id"].unique(), key=lambda u: hashed(domain, u))
    first = 100_000 * (DOMAINS.index(domain) + 1) + 1
    table = pl.DataFrame({"user_id": users, "number": range(first, first + len(users))})
    joined = events.join(table, on="user_id").sort("number", "timestamp", "item_id")
    return joined.select(pl.col("number").alias("user_id"), "item_id", "timestamp")


def write(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as f:
        f.write(frame.write_csv().encode())


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    for domain in DOMAINS:
        events = pl.read_csv(source / domain / "interactions.csv.gz", schema_overrides={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
        items = pl.read_csv(source / domain / "items.csv.gz", infer_schema=False)
        chosen = numbered(densest(events, domain), domain)
        used = items.filter(pl.col("item_id").is_in(chosen["item_id"].unique().implode())).sort("item_id")
        write(out / domain / "interactions.csv.gz", chosen)
        write(out / domain / "items.csv.gz", used.select("item_id", "title", "brand", "category"))
        size = sum(p.stat().st_size for p in (out / domain).iterdir())
        print(f"{domain}: {chosen['user_id'].n_unique()} users, {used.height} items, {chosen.height} events, {size} bytes")


if __name__ == "__main__":
    main()
