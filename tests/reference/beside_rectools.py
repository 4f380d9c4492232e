"""SASRec and BERT4Rec beside RecTools: the same events, split, width and number of passes, the whole catalogue ranked, three seeds; and the time of a pass.

usage: beside_rectools.py DOMAIN_FOLDER --rectools PYTHON [--users N] [--epochs N] [--seeds 1,2,3] [--time-only]

DOMAIN_FOLDER is a built domain's version folder. PYTHON is that of an environment with `rectools[torch]`, which this project does not depend on. NDCG@10 of
every test user who was trained on, items bought before left out; agreement is within 5 % or two joint standard errors over seeds, whichever is larger.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTH, BLOCKS, HEADS, DROPOUT, LENGTH, BATCH, RATE, K = 64, 2, 2, 0.2, 20, 128, 1e-3, 10
MODELS = {"sasrec": "SASRecModel", "bert4rec": "BERT4RecModel"}


def write_events(folder: Path, out: Path, n_users: int | None) -> None:
    """Write `train.csv`, `known.csv` (training and validation events) and `test.csv` of the first users of the project's own order."""
    import polars as pl

    from recmerge.data.dataset import read_domain, user_order

    domain = read_domain(folder)
    users = user_order(domain.users["user_id"], 42)[:n_users]
    events = domain.events.filter(pl.col("user_id").is_in(users)).sort("user_id", "position")
    items = set(events.filter(pl.col("split") == "train")["item_id"])
    asked = {u for u, i in events.filter(pl.col("split") == "test").select("user_id", "item_id").iter_rows() if i in items}
    taught = set(events.filter(pl.col("split") == "train").group_by("user_id").len().filter(pl.col("len") > 1)["user_id"])
    events = events.filter(pl.col("item_id").is_in(sorted(items)))
    for name, splits in (("train", ["train"]), ("known", ["train", "valid"])):
        events.filter(pl.col("split").is_in(splits)).select("user_id", "item_id", "position").write_csv(out / f"{name}.csv")
    events.filter((pl.col("split") == "test") & pl.col("user_id").is_in(sorted(asked & taught))).select("user_id", "item_id").write_csv(out / "test.csv")


def ndcg(places: list[int]) -> float:
    """Return the mean NDCG@10 of 0-based places; -1: not among the first ten."""
    return sum(1 / math.log2(place + 2) for place in places if place >= 0) / len(places)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def ours(model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train and ask this project's ranker."""
    import numpy as np
    import polars as pl

    from recmerge.data.dataset import Domain, Example
    from recmerge.rankers import new_ranker

    train = pl.DataFrame(rows(folder / "train.csv")).with_columns(pl.col("position").cast(pl.Int32))
    items = sorted(set(train["item_id"]))
    catalogue = pl.DataFrame({"item_id": items, "title": items, "brand": [""] * len(items), "category": [""] * len(items)})
    events = train.with_columns(timestamp=pl.lit(None, dtype=pl.Int64), split=pl.lit("train"))
    asked = pl.DataFrame(schema={"split": pl.String, "user_id": pl.String, "target": pl.String, "candidates": pl.List(pl.String)})
    domain = Domain("parity", "clean", catalogue, events, train.select("user_id").unique(), pl.DataFrame(), asked)
    same = {"width": WIDTH, "blocks": BLOCKS, "heads": HEADS, "inner": 4 * WIDTH, "dropout": DROPOUT, "max_history": LENGTH, "batch_size": BATCH}
    ranker = new_ranker(model, seed=seed, settings={**same, "learning_rate": RATE, "epochs": epochs, "negatives": 0, "eval_every": epochs})
    begin = time.perf_counter()
    ranker.fit(domain)
    seconds = time.perf_counter() - begin
    history: dict[str, list[str]] = {}
    for row in rows(folder / "known.csv"):
        history.setdefault(row["user_id"], []).append(row["item_id"])
    questions = [Example("parity", r["user_id"], tuple(history[r["user_id"]]), r["item_id"], ()) for r in rows(folder / "test.csv")]
    number, places = {item: i for i, item in enumerate(items)}, list[int]()
    for start in range(0, len(questions), 256):
        part = questions[start : start + 256]
        for question, scores in zip(part, ranker.score_all(part, items), strict=True):  # type: ignore[attr-defined]
            scores[[number[i] for i in question.history if i != question.target]] = -np.inf
            place = int((scores > scores[number[question.target]]).sum())
            places.append(place if place < K and question.target not in question.history else -1)
    return {"ndcg": ndcg(places), "seconds": seconds, "users": len(places)}


def theirs(model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train and ask RecTools' model; runs in its environment."""
    import pandas as pd  # type: ignore[import-untyped]
    import rectools.models  # type: ignore[import-not-found]
    from pytorch_lightning import Trainer, seed_everything
    from rectools.dataset import Dataset  # type: ignore[import-not-found]

    def dataset(name: str) -> Any:
        frame = pd.read_csv(folder / f"{name}.csv", dtype=str)
        frame["datetime"] = pd.to_datetime(frame.pop("position").astype(int), unit="D")
        return Dataset.construct(frame.assign(weight=1.0))

    def trainer() -> Any:
        return Trainer(max_epochs=epochs, min_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)

    seed_everything(seed)
    same = {"n_blocks": BLOCKS, "n_heads": HEADS, "n_factors": WIDTH, "dropout_rate": DROPOUT, "session_max_len": LENGTH, "batch_size": BATCH, "lr": RATE}
    found = getattr(rectools.models, MODELS[model])(**same, loss="softmax", epochs=epochs, get_trainer_func=trainer, recommend_torch_device="cpu")
    begin = time.perf_counter()
    found.fit(dataset("train"))
    seconds = time.perf_counter() - begin
    test = pd.read_csv(folder / "test.csv", dtype=str)
    listed = found.recommend(test["user_id"].tolist(), dataset("known"), k=K, filter_viewed=True)
    place = {(u, i): r - 1 for u, i, r in listed[["user_id", "item_id", "rank"]].itertuples(index=False)}
    places = [place.get((u, i), -1) for u, i in test.itertuples(index=False)]
    return {"ndcg": ndcg(places), "seconds": seconds, "users": len(places)}


def one(python: str, side: str, model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    words = [python, __file__, str(folder), "--side", side, model, str(seed), str(epochs)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compared(model: str, found: dict[str, list[dict[str, float]]], epochs: int) -> str:
    """Say both sides' means, their difference and whether they agree."""
    means, errors = [], []
    for side in ("ours", "theirs"):
        values = [run["ndcg"] for run in found[side]]
        mean = sum(values) / len(values)
        means.append(mean)
        errors.append(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1) / len(values))
    allowed = max(0.05 * means[1], 2 * math.sqrt(sum(errors)))
    seconds = {side: min(run["seconds"] for run in found[side]) / epochs for side in found}
    word = "agrees" if abs(means[0] - means[1]) <= allowed else "better" if means[0] > means[1] else "WORSE"
    return (
        f"{model}: NDCG@{K} {means[0]:.4f}, RecTools {means[1]:.4f}; {means[0] - means[1]:+.4f}, allowed {allowed:.4f}: {word}; "
        f"a pass {seconds['ours']:.1f} s, RecTools {seconds['theirs']:.1f} s ({seconds['theirs'] / seconds['ours']:.1f} times)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rectools", help="python of an environment with rectools[torch]")
    parser.add_argument("--users", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "MODEL", "SEED", "EPOCHS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side, model, seed, epochs = asked.side
        print(json.dumps((ours if side == "ours" else theirs)(model, asked.folder, int(seed), int(epochs))))
        return
    with tempfile.TemporaryDirectory() as place:
        write_events(asked.folder, Path(place), asked.users)
        for model in asked.models.split(","):
            seeds = [int(seed) for seed in asked.seeds.split(",")]
            pythons = {"ours": sys.executable, "theirs": asked.rectools}
            found = {side: [one(python, side, model, Path(place), seed, asked.epochs) for seed in seeds] for side, python in pythons.items()}
            print(compared(model, found, asked.epochs), f"({found['ours'][0]['users']} users, {len(seeds)} seeds, {asked.epochs} passes)", flush=True)


if __name__ == "__main__":
    main()
