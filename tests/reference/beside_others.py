"""SASRec and BERT4Rec beside RecTools, all three beside RecBole: the same events, split, width and number of passes, the whole catalogue ranked, three seeds;
and the time of a pass.

usage: beside_others.py DOMAIN_FOLDER [--rectools PYTHON] [--recbole PYTHON] [--users N] [--asked N] [--epochs N] [--seeds 1,2,3]
                       [--models sasrec,bert4rec,gru4rec]

DOMAIN_FOLDER is a built domain's version folder. Each PYTHON is that of an environment with `rectools[torch]` or `recbole`, which this project does not depend
on; what needs one that is not given is left out. NDCG@10 of every test user who was trained on, items bought before left out; agreement is within 5 % or two
joint standard errors over seeds, whichever is larger. For the time alone: --epochs 2 --seeds 1 --asked 500, on an idle machine.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

WIDTH, BLOCKS, HEADS, DROPOUT, LENGTH, BATCH, RATE, K = 64, 2, 2, 0.2, 20, 128, 1e-3, 10
BESIDE = "beside-"
HIDDEN, DROPOUT_READ = 128, 0.3  # of GRU4Rec
PREFIXES = 512  # a batch where every beginning of a history is a row of its own: those of some 128 users
SIDES = {"sasrec": ("rectools", "recbole"), "bert4rec": ("rectools", "recbole"), "gru4rec": ("recbole",)}
HIDES = {"rectools": {"mask_ratio": 0.15, "last_ratio": 0.0}, "recbole": {"mask_ratio": 0.2, "last_ratio": 0.5}}  # of BERT4Rec, each by default


def write_events(folder: Path, out: Path, n_users: int | None, n_asked: int | None) -> None:
    """Write `train.csv`, `known.csv` (training and validation events) and `test.csv` (of some) of the first users of the project's own order."""
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
    questions = events.filter((pl.col("split") == "test") & pl.col("user_id").is_in(sorted(asked & taught))).select("user_id", "item_id")
    questions.head(n_asked or len(questions)).write_csv(out / "test.csv")


def ndcg(places: list[int]) -> float:
    """Return the mean NDCG@10 of 0-based places; -1: not among the first ten."""
    return sum(1 / math.log2(place + 2) for place in places if place >= 0) / len(places)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def histories(path: Path) -> dict[str, list[str]]:
    """Return user -> items, in order."""
    found: dict[str, list[str]] = {}
    for row in rows(path):
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def ours(model: str, folder: Path, seed: int, epochs: int, beside: str) -> dict[str, float]:
    """Train and ask this project's ranker, with what the other one makes rows of: RecTools of buyers, RecBole, but for BERT4Rec, of purchases."""
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
    attentive = {"blocks": BLOCKS, "heads": HEADS, "inner": 4 * WIDTH, "dropout": DROPOUT}
    same = {"hidden": HIDDEN, "layers": 1, "dropout": DROPOUT_READ} if model == "gru4rec" else attentive
    how = {"max_history": LENGTH, "batch_size": BATCH, "learning_rate": RATE, "epochs": epochs, "negatives": 0, "eval_every": epochs}
    if model == "bert4rec":
        how |= HIDES[beside]
    elif beside == "recbole":
        how |= {"rows": "purchases", "batch_size": PREFIXES}
    ranker = new_ranker(model, seed=seed, settings={"width": WIDTH, **how, **same})
    begin = time.perf_counter()
    ranker.fit(domain)
    seconds = time.perf_counter() - begin
    history = histories(folder / "known.csv")
    questions = [Example("parity", r["user_id"], tuple(history[r["user_id"]]), r["item_id"], ()) for r in rows(folder / "test.csv")]
    number, places = {item: i for i, item in enumerate(items)}, list[int]()
    for start in range(0, len(questions), 256):
        part = questions[start : start + 256]
        for question, scores in zip(part, ranker.score_all(part, items), strict=True):  # type: ignore[attr-defined]
            scores[[number[i] for i in question.history if i != question.target]] = -np.inf
            place = int((scores > scores[number[question.target]]).sum())
            places.append(place if place < K and question.target not in question.history else -1)
    return {"ndcg": ndcg(places), "seconds": seconds, "users": len(places)}


def rectools(model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
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
    named = {"sasrec": "SASRecModel", "bert4rec": "BERT4RecModel"}[model]
    found = getattr(rectools.models, named)(**same, loss="softmax", epochs=epochs, get_trainer_func=trainer, recommend_torch_device="cpu")
    begin = time.perf_counter()
    found.fit(dataset("train"))
    seconds = time.perf_counter() - begin
    test = pd.read_csv(folder / "test.csv", dtype=str)
    listed = found.recommend(test["user_id"].tolist(), dataset("known"), k=K, filter_viewed=True)
    place = {(u, i): r - 1 for u, i, r in listed[["user_id", "item_id", "rank"]].itertuples(index=False)}
    places = [place.get((u, i), -1) for u, i in test.itertuples(index=False)]
    return {"ndcg": ndcg(places), "seconds": seconds, "users": len(places)}


def write_rows(folder: Path, out: Path, *, whole: bool) -> None:
    """Write RecBole's files: every beginning of a training history with what came next, or whole histories, and every test question."""
    taught, known = histories(folder / "train.csv"), histories(folder / "known.csv")
    if whole:
        next_of = [(user, bought[-LENGTH - 1 :], bought[-1]) for user, bought in taught.items() if len(bought) > 1]
    else:
        next_of = [(user, bought[max(0, i - LENGTH) : i], bought[i]) for user, bought in taught.items() for i in range(1, len(bought))]
    questions = [(r["user_id"], known[r["user_id"]][-LENGTH:], r["item_id"]) for r in rows(folder / "test.csv")]
    out.mkdir()
    for name, listed in (("train", next_of), ("valid", questions[:1]), ("test", questions)):
        lines = ["\t".join((user, " ".join(before), after)) for user, before, after in listed]
        text = "\n".join(["user_id:token\titem_id_list:token_seq\titem_id:token", *lines])
        (out / f"{out.name}.{name}.inter").write_text(text + "\n", encoding="utf-8")


def recbole(model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train and ask RecBole's model; runs in its environment."""
    import torch
    from recbole.config import Config  # type: ignore[import-not-found]
    from recbole.data import create_dataset, data_preparation  # type: ignore[import-not-found]
    from recbole.utils import get_model, get_trainer, init_seed  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as place:
        is_filler = model == "bert4rec"  # learns from lists alone, whatever comes next
        write_rows(folder, Path(place) / "parity", whole=is_filler)
        attentive = {"n_layers": BLOCKS, "n_heads": HEADS, "hidden_size": WIDTH, "inner_size": 4 * WIDTH, "hidden_dropout_prob": DROPOUT}
        recurrent = {"embedding_size": WIDTH, "hidden_size": HIDDEN, "num_layers": 1, "dropout_prob": DROPOUT_READ}
        sizes = recurrent if model == "gru4rec" else {**attentive, "attn_dropout_prob": DROPOUT}
        how = {"loss_type": "CE", "train_neg_sample_args": None, "train_batch_size": BATCH if is_filler else PREFIXES, "learning_rate": RATE}
        how |= {"epochs": epochs, "seed": seed, "eval_step": 0}
        files = {"data_path": place, "benchmark_filename": ["train", "valid", "test"], "load_col": {"inter": ["user_id", "item_id_list", "item_id"]}}
        lists = {
            "alias_of_item_id": ["item_id_list"],
            "MAX_ITEM_LIST_LENGTH": LENGTH + is_filler,
            "use_gpu": False,
            "show_progress": False,
            "checkpoint_dir": place,
        }
        name = {"gru4rec": "GRU4Rec", "sasrec": "SASRec", "bert4rec": "BERT4Rec"}[model]
        config = Config(model=name, dataset="parity", config_dict={**sizes, **how, **files, **lists})
        init_seed(seed, True)
        data = create_dataset(config)
        train, _, _ = data_preparation(config, data)
        init_seed(seed, True)
        found = get_model(name)(config, train.dataset)
        begin = time.perf_counter()
        get_trainer(config["MODEL_TYPE"], name)(config, found).fit(train, None, verbose=False, saved=False, show_progress=False)
        seconds = time.perf_counter() - begin
        known, test, places = histories(folder / "known.csv"), rows(folder / "test.csv"), list[int]()
        listed = set(data.field2id_token["item_id"])
        found.eval()
        for row in test:
            history = known[row["user_id"]]
            read = torch.tensor([[0] * is_filler + [data.token2id("item_id", item) for item in history[-LENGTH:]]])  # BERT4Rec drops what stands first
            seen = torch.nn.functional.pad(read, (0, LENGTH + is_filler - read.shape[1]))
            with torch.no_grad():
                scores = found.full_sort_predict({"item_id_list": seen, "item_length": torch.tensor([read.shape[1]])})[0]
            bought = [i for i in history if i in listed and i != row["item_id"]]  # the oldest purchases of long histories are in no row
            scores[[0, *(data.token2id("item_id", i) for i in bought)]] = -torch.inf
            place = int((scores > scores[data.token2id("item_id", row["item_id"])]).sum())
            places.append(place if place < K and row["item_id"] not in history else -1)
    return {"ndcg": ndcg(places), "seconds": seconds, "users": len(places)}


def one(python: str, side: str, model: str, folder: Path, seed: int, epochs: int) -> dict[str, float]:
    words = [python, str(Path(__file__).resolve()), str(folder), "--side", side, model, str(seed), str(epochs)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)  # where they write logs of their own
    if done.returncode:
        raise SystemExit(f"{side}, {model}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compared(model: str, other: str, mine: list[dict[str, float]], others: list[dict[str, float]], epochs: int) -> str:
    """Say both sides' means, their difference and whether they agree."""
    means, errors = [], []
    for runs in (mine, others):
        values = [run["ndcg"] for run in runs]
        mean = sum(values) / len(values)
        means.append(mean)
        errors.append(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1) / len(values))
    allowed = max(0.05 * means[1], 2 * math.sqrt(sum(errors)))
    seconds = [min(run["seconds"] for run in runs) / epochs for runs in (mine, others)]
    word = "agrees" if abs(means[0] - means[1]) <= allowed else "better" if means[0] > means[1] else "WORSE"
    word = word if len(mine) > 1 else "one seed says nothing of that"
    return (
        f"{model}: NDCG@{K} {means[0]:.4f}, {other} {means[1]:.4f}; {means[0] - means[1]:+.4f}, allowed {allowed:.4f}: {word}; "
        f"a pass {seconds[0]:.2f} s, {other} {seconds[1]:.2f} s ({seconds[1] / seconds[0]:.1f} times) "
        f"({mine[0]['users']} users, {len(mine)} seeds, {epochs} passes)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rectools", help="python of an environment with rectools[torch]")
    parser.add_argument("--recbole", help="python of an environment with recbole")
    parser.add_argument("--users", type=int, help="that are learnt from")
    parser.add_argument("--asked", type=int, help="of them, that are asked at most")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--models", default=",".join(SIDES))
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "MODEL", "SEED", "EPOCHS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side, model, seed, epochs = asked.side
        run = {"rectools": rectools, "recbole": recbole}.get(side) or partial(ours, beside=side.removeprefix(BESIDE))
        print(json.dumps(run(model, asked.folder, int(seed), int(epochs))))
        return
    pythons = {"rectools": asked.rectools, "recbole": asked.recbole}
    with tempfile.TemporaryDirectory() as place:
        write_events(asked.folder, Path(place), asked.users, asked.asked)

        def runs(side: str, model: str) -> list[dict[str, float]]:
            return [one(pythons.get(side, sys.executable), side, model, Path(place), int(seed), asked.epochs) for seed in asked.seeds.split(",")]

        for model in asked.models.split(","):
            others = [side for side in SIDES[model] if pythons[side]]
            for side in others:
                print(compared(model, side, runs(f"{BESIDE}{side}", model), runs(side, model), asked.epochs), flush=True)


if __name__ == "__main__":
    main()
