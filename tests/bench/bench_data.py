"""How fast raw Amazon 2014 reviews are read, with bad lines among them, and how long a domain's build takes beside the published procedure.

usage: bench_data.py [--reviews N] [--times 1 2 4 8] [--bad SHARE] [--domain NAME] [--timeout S]

Makes its data: real users, items and times of one domain where RECMERGE_SHARED names a folder of real data, invented ones elsewhere. Reading is
timed in a process of its own, which also gives the peak memory; the larger files hold the same reviews several times.
"""

import argparse
import csv
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published_procedure.py")
WORDS = ["the", "a", "this", "good", "sound", "string", "guitar", "cable", "works", "very", "well", "easy", "to", "use", "great", "price", "and", "not", "too"]
START, DAY = 1_300_000_000, 86_400


@dataclass(frozen=True)
class Events:
    """What was bought: (user, item, seconds) and the titles by item."""

    events: list[tuple[str, str, int]]
    titles: dict[str, str]


def invented(n_reviews: int, draw: random.Random) -> Events:
    """Invent users with 5 to 12 items each, some items far more popular than others, times in whole days."""
    items = [f"B{i:09d}" for i in range(max(60, n_reviews // 16))]
    events: list[tuple[str, str, int]] = []
    while len(events) < n_reviews:
        own = {items[int(len(items) * draw.random() ** 1.5)] for _ in range(draw.randint(6, 13))}
        user, start = f"A{len(events):012d}", START + draw.randrange(900) * DAY
        events += [(user, item, start + draw.randrange(300) * DAY) for item in sorted(own)]
    return Events(events, {item: f"{draw.choice(WORDS)} {draw.choice(WORDS)} model {item[-4:]}" for item in items})


def real(folder: Path) -> Events:
    """Read a domain's tables; where a time is unknown the user's last one stands."""

    def rows(name: str) -> Iterator[dict[str, str]]:
        with gzip.open(folder / name, "rt", newline="", encoding="utf-8") as f:
            yield from csv.DictReader(f)

    events, last = [], dict[str, int]()
    for row in rows("interactions.csv.gz"):
        last[row["user_id"]] = int(row["timestamp"]) if row["timestamp"] else last.get(row["user_id"], START)
        events.append((row["user_id"], row["item_id"], last[row["user_id"]]))
    return Events(events, {row["item_id"]: row["title"] for row in rows("items.csv.gz")})


def review_texts(shared: Path | None, draw: random.Random) -> list[str]:
    """Return texts as long as real ones: real ones where there are any."""
    path = shared / "data/raw/reviews_Musical_Instruments_5.json.gz" if shared else None
    if path is None or not path.is_file():
        return [" ".join(draw.choices(WORDS, k=int(draw.lognormvariate(4.2, 0.8)) + 5)) for _ in range(2000)]
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line)["reviewText"] for line in f]


def review_lines(data: Events, texts: list[str], draw: random.Random) -> list[bytes]:
    """Write the reviews as the official files do, by item."""
    lines = []
    for user, item, seconds in sorted(data.events, key=lambda event: event[1]):
        review = {"reviewerID": user, "asin": item, "reviewerName": "A. Buyer", "helpful": [0, 0], "reviewText": draw.choice(texts), "overall": 5.0}
        review |= {"summary": "good", "unixReviewTime": seconds, "reviewTime": time.strftime("%m %-d, %Y", time.gmtime(seconds))}
        lines.append(json.dumps(review).encode())
    return lines


def damaged(lines: list[bytes], share: float, draw: random.Random) -> tuple[list[bytes], int]:
    """Damage a share of the lines, spread among them and each in one of four ways."""
    ways = (
        lambda line: line[: len(line) // 2],
        lambda line: line.replace(b'", "asin"', b', "asin"'),
        lambda line: line.replace(b'"reviewText": "', b'"reviewText": "\0\xff'),
        lambda line: line.replace(b'"reviewerID": "', b'"reviewer": "'),
    )
    bad = draw.sample(range(len(lines)), round(share * len(lines)))
    spoilt = {place: ways[n % len(ways)](lines[place]) for n, place in enumerate(bad)}
    return [spoilt.get(place, line) for place, line in enumerate(lines)], len(bad)


def write_gz(path: Path, lines: list[bytes], times: int = 1) -> Path:
    part = gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=6)
    with path.open("wb") as f:
        for _ in range(times):
            f.write(part)
    return path


def read_once(reviews: str, meta: str) -> None:
    """Read a file in this process and print what it took; called in a process of its own."""
    from recmerge.data.sources import SOURCES

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter(), sum(os.times()[:4])  # the CPU time with that of processes started
    raw = SOURCES["amazon2014"].read({"reviews": Path(reviews), "meta": Path(meta)}, {})
    seconds, cpu = time.perf_counter() - start[0], sum(os.times()[:4]) - start[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"n": raw.interactions.height, "rejected": raw.rejects.by_reason(), "seconds": seconds, "cpu": cpu, "peak": peak * unit, "before": before * unit}
    print(json.dumps(found))


def run(*words: object, timeout: float | None = None) -> tuple[float, str]:
    """Return the seconds that a process took, which must succeed, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=timeout)
    return time.perf_counter() - start, done.stdout


def bench_reading(folder: Path, lines: list[bytes], data: Events, times: list[int], share: float, draw: random.Random) -> None:
    """Print how the cost of reading grows with the reviews."""
    bad, n_bad = damaged(lines, share, draw)
    item, title = next(iter(data.titles.items()))
    meta = write_gz(folder / "one_item.json.gz", [repr({"asin": item, "title": title}).encode()])
    print(f"reading: {len(lines):,} reviews a time, {sum(map(len, lines)) // len(lines)} bytes each, gzipped, {n_bad} of them bad")
    for n in times:
        path = write_gz(folder / "reviews.json.gz", bad, n)
        _, out = run(sys.executable, __file__, "--read", path, meta)
        found = json.loads(out)
        rejected = sum(found["rejected"].values())
        if (found["n"], rejected) != (n * (len(lines) - n_bad), n * n_bad):
            raise SystemExit(f"read {found['n']} and put aside {rejected} of {n * len(lines)} reviews, of which {n * n_bad} are bad")
        speed = n * len(lines) / found["seconds"]
        mb, before = found["peak"] / 1e6, found["before"] / 1e6
        took = f"{found['seconds']:7.2f} s ({found['cpu']:.2f} s of CPU)"
        print(f"  {n:3}x {n * len(lines):>11,} reviews {took} {speed / 1e6:6.3f} M reviews/s, peak {mb:6,.0f} MB ({before:,.0f} at start)")


def bench_build(folder: Path, lines: list[bytes], data: Events, timeout: float) -> None:
    """Print how long a whole build takes, beside the published procedure on the same files."""
    reviews = write_gz(folder / "reviews_x_5.json.gz", lines)
    meta = write_gz(folder / "meta_x.json.gz", [repr({"asin": i, "title": t} if t else {"asin": i}).encode() for i, t in data.titles.items()])
    settings = ["--set", f"reviews={reviews}", "--set", f"meta={meta}", "--workspace", folder / "workspace", "--json"]
    ours, out = run(Path(sys.executable).with_name("recmerge"), "data", "build", "x", "--config", "amazon2014", *settings)
    counts = json.loads(out)["facts"]["counts"]
    print(f"build: {len(lines):,} reviews, raw: {counts['users']:,} users, {counts['items']:,} items, {counts['rows']:,} rows")
    print(f"  recmerge data build                 {ours:8.2f} s")
    try:
        theirs, out = run(sys.executable, PUBLISHED, reviews, meta, folder / "published", timeout=timeout)
    except subprocess.TimeoutExpired:
        print(f"  published procedure, plain Python   more than {timeout:.0f} s: over {timeout / ours:.0f} times as long")
        return
    found = json.loads(out)
    print(f"  published procedure, plain Python   {theirs:8.2f} s for {found['users']:,} users and {found['rows']:,} rows: {theirs / ours:.1f} times as long")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--reviews", type=int, default=50_000, help="invented reviews")
    words.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 8])
    words.add_argument("--bad", type=float, default=1e-4, help="share of bad lines")
    words.add_argument("--domain", default="food", help="the real domain, with RECMERGE_SHARED")
    words.add_argument("--timeout", type=float, default=90, help="seconds that the published procedure may take")
    words.add_argument("--read", nargs=2, metavar=("REVIEWS", "META"), help="only read these files")
    asked = words.parse_args()
    if asked.read:
        read_once(*asked.read)
        return
    draw = random.Random(0)
    shared = Path(os.environ["RECMERGE_SHARED"]) if os.environ.get("RECMERGE_SHARED") else None
    data = real(shared / "data/amazon2014" / asked.domain) if shared else invented(asked.reviews, draw)
    n_users, n_items = len({user for user, _, _ in data.events}), len(data.titles)
    print(f"{asked.domain if shared else 'invented'}: {len(data.events):,} reviews of {n_users:,} users, {n_items:,} items")
    lines = review_lines(data, review_texts(shared, draw), draw)
    with tempfile.TemporaryDirectory() as folder:
        bench_reading(Path(folder), lines, data, asked.times, asked.bad, draw)
        bench_build(Path(folder), lines, data, asked.timeout)


if __name__ == "__main__":
    main()
