"""The same data set comes out of raw files and of tables, whatever the official shape."""

import csv
import gzip
import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from recmerge.runs import Workspace

Cli = Callable[..., tuple[int, str, str]]
TableDomain = Callable[..., Path]
Row = dict[str, str]
SCRIPT = "var aPageStart = (new Date()).getTime();"


def rows(path: Path) -> list[Row]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def write_table(path: Path, table: list[Row]) -> Path:
    with gzip.open(path, "wt", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def gz(path: Path, lines: Iterable[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def shuffled(lines: Iterable[Any]) -> list[Any]:
    found = list(lines)
    random.Random(1).shuffle(found)
    return found


def built(cli: Cli, name: str, *words: object) -> tuple[dict[str, str], dict[str, Any]]:
    code, out, err = cli("data", "build", name, *words, "--json", "--again")
    assert code == 0, err
    document = json.loads(out)
    return {Path(o["path"]).name: o["sha256"] for o in document["outputs"]}, document["facts"]


def as_amazon2018(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    reviews = [{"overall": 5.0, "reviewerID": e["user_id"], "asin": e["item_id"], "unixReviewTime": int(e["timestamp"])} for e in events]
    meta = [{"asin": i["item_id"], "title": i["title"], "brand": i["brand"], "category": i["category"].split(" ")} for i in items]
    meta += [{**meta[0], "title": SCRIPT}, {"asin": "never", "title": SCRIPT}]
    gz(folder / "X_5.json.gz", map(json.dumps, shuffled(reviews + reviews[:5])))
    gz(folder / "meta_X.json.gz", map(json.dumps, shuffled(meta)))
    return ["--config", "amazon2018", "--set", f"reviews={folder}/X_5.json.gz", "--set", f"meta={folder}/meta_X.json.gz"]


def write_meta23(folder: Path, items: list[Row]) -> str:
    meta = [{"parent_asin": i["item_id"], "title": i["title"], "store": i["brand"], "categories": [], "main_category": i["category"]} for i in items]
    return f"meta={gz(folder / 'meta_X.jsonl.gz', map(json.dumps, shuffled(meta)))}"


def as_amazon2023(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    reviews = [
        {
            "user_id": e["user_id"],
            "asin": f"v{n}",
            "parent_asin": e["item_id"],
            "timestamp": int(e["timestamp"]) * 1000 + n % 1000,
            "rating": 5.0,
            "title": "Nice",
        }
        for n, e in enumerate(events)
    ]
    gz(folder / "X.jsonl.gz", map(json.dumps, shuffled(reviews)))
    return ["--config", "amazon2023", "--set", f"reviews={folder}/X.jsonl.gz", "--set", write_meta23(folder, items)]


def as_amazon2023_csv(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    lines = [f"{e['user_id']},{e['item_id']},5.0,{e['timestamp']}999" for e in events]
    gz(folder / "X.csv.gz", ["user_id,parent_asin,rating,timestamp", *shuffled(lines)])
    return ["--config", "amazon2023", "--set", f"reviews={folder}/X.csv.gz", "--set", write_meta23(folder, items)]


def as_movielens_1m(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    ratings = [f"{e['user_id']}::{e['item_id']}::5::{e['timestamp']}\n" for e in events]
    movies = [f"{i['item_id']}::{i['title']}::{i['category'].replace(' ', '|')}\n" for i in items]
    return zipped(folder, {"ratings.dat": shuffled(ratings), "movies.dat": shuffled(movies)}, "latin-1")


def as_movielens_32m(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    ratings = [f"{e['user_id']},{e['item_id']},4.5,{e['timestamp']}\n" for e in events]
    movies = [f'{i["item_id"]},"{i["title"]}",{i["category"].replace(" ", "|")}\n' for i in items]
    members = {"ratings.csv": ["userId,movieId,rating,timestamp\n", *shuffled(ratings)], "movies.csv": ["movieId,title,genres\n", *shuffled(movies)]}
    return zipped(folder, members, "utf-8")


def as_movielens_100k(folder: Path, events: list[Row], items: list[Row]) -> list[str]:
    ratings = [f"{e['user_id']}\t{e['item_id']}\t5\t{e['timestamp']}\n" for e in events]
    genres = list(dict.fromkeys(word for i in items for word in i["category"].split(" ")))
    flags = {i["item_id"]: "|".join(str(int(g in i["category"].split(" "))) for g in genres) for i in items}
    movies = [f"{i['item_id']}|{i['title']}|01-Jan-1995||url|{flags[i['item_id']]}\n" for i in items]
    listed = [f"{g}|{n}\n" for n, g in enumerate(genres)]
    return zipped(folder, {"u.data": shuffled(ratings), "u.item": shuffled(movies), "u.genre": listed}, "latin-1")


def zipped(folder: Path, members: dict[str, list[str]], encoding: str) -> list[str]:
    with zipfile.ZipFile(folder / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in members.items():
            archive.writestr(f"ml/{name}", "".join(lines).encode(encoding))
    return ["--config", "movielens", "--set", f"archive={folder}/ml.zip"]


AMAZON = [as_amazon2018, as_amazon2023, as_amazon2023_csv]
MOVIELENS = [as_movielens_1m, as_movielens_100k, as_movielens_32m]  # they have no brands


@pytest.mark.parametrize("shape", AMAZON + MOVIELENS)
@pytest.mark.parametrize("profile", ["clean", "published"])
def test_raw_and_table_give_the_same_bytes(
    cli: Cli, workspace: Workspace, table_domain: TableDomain, tmp_path: Path, shape: Callable[[Path, list[Row], list[Row]], list[str]], profile: str
) -> None:
    config = table_domain("toys")
    events, items = rows(config.parent / "toys_interactions.csv"), rows(config.parent / "toys_items.csv")
    for item in items:
        item["title"] += " é"
        item["brand"] = "" if shape in MOVIELENS else item["brand"]
    if profile == "published":  # it keeps a user's file order among equal times, and the raw files are shuffled
        events = [{**e, "timestamp": str(int(e["timestamp"]) + n)} for n, e in enumerate(events)]
    table = ["--config", config, "--interactions", write_table(tmp_path / "e.csv.gz", events), "--items", write_table(tmp_path / "i.csv.gz", items)]
    from_table, facts = built(cli, "toys", *table, "--profile", profile)
    from_raw, raw_facts = built(cli, "toys", *shape(tmp_path, events, items), "--profile", profile)
    assert from_raw == from_table
    assert raw_facts["counts"] == facts["counts"]
    assert facts["counts"]["items"] == 40
    found = {name: n for name, n in raw_facts["read"]["counts"].items() if n}
    assert found == ({"repeated_reviews": 5, "repeated_items": 1, "script_titles": 1} if shape is as_amazon2018 else {})


def test_what_the_files_are_known_for_is_said(cli: Cli, workspace: Workspace, table_domain: TableDomain, tmp_path: Path) -> None:
    folder = table_domain("toys").parent
    words = as_amazon2018(tmp_path, rows(folder / "toys_interactions.csv"), rows(folder / "toys_items.csv"))
    code, _, err = cli("data", "build", "toys", *words)
    assert code == 0
    assert "in the files: 5 repeated_reviews, 1 script_titles, 1 repeated_items" in " ".join(err.split())


def test_items_without_any_title_but_a_script_are_dropped_and_counted(cli: Cli, workspace: Workspace, table_domain: TableDomain, tmp_path: Path) -> None:
    folder = table_domain("toys").parent
    events, items = rows(folder / "toys_interactions.csv"), rows(folder / "toys_items.csv")
    items[7]["title"] = SCRIPT
    _, facts = built(cli, "toys", *as_amazon2018(tmp_path, events, items), "--set", "k_core=1")
    assert facts["titles"]["missing"] == 1
    assert facts["dropped_events"]["no_title"] == sum(e["item_id"] == items[7]["item_id"] for e in events)


def test_amazon2014_in_its_official_shape_is_its_table(cli: Cli, workspace: Workspace, shared: Path, tmp_path: Path) -> None:
    tool = shared / "tools" / "raw_shape.py"
    if not tool.is_file():
        pytest.skip(f"no {tool}")
    table = tmp_path / "table"
    table.mkdir()
    events = rows(shared / "data" / "amazon2014" / "sports" / "interactions.csv.gz")
    users = set(sorted({e["user_id"] for e in events if e["timestamp"]} - {e["user_id"] for e in events if not e["timestamp"]})[:500])
    events = [e for e in events if e["user_id"] in users]
    bought = {e["item_id"] for e in events}
    items = [i for i in rows(shared / "data" / "amazon2014" / "sports" / "items.csv.gz") if i["item_id"] in bought]
    files = write_table(table / "interactions.csv.gz", events), write_table(table / "items.csv.gz", items)
    subprocess.run([sys.executable, tool, table, "X", tmp_path], check=True)
    common = ("--set", "k_core=1", "--seed", 3)
    columns = ("--set", "columns.brand=brand", "--set", "columns.category=category")
    from_table, facts = built(cli, "sports", "--config", "table", "--interactions", files[0], "--items", files[1], *columns, *common)
    raw = ("--set", f"reviews={tmp_path}/reviews_X_5.json.gz", "--set", f"meta={tmp_path}/meta_X.json.gz")
    from_raw, raw_facts = built(cli, "sports", "--config", "amazon2014", *raw, *common)
    assert from_raw == from_table
    assert facts["counts"]["users"] == 500
    assert (facts["counts"], facts["dropped_events"]) == (raw_facts["counts"], raw_facts["dropped_events"])
