"""The listed faults of bad input, full disks and forbidden folders, for every data command: one line, the right exit code, nothing lost."""

import errno
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recmerge.data import dataset
from recmerge.runs import Workspace, resolve

Cli = Callable[..., tuple[int, str, str]]
TableDomain = Callable[..., Path]
FULL = Path("/dev/full")  # every write to it fails as on a full disk
DAY = 86_400
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def only_error(err: str) -> str:
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error[")
    assert "; fix: " in lines[0]
    return lines[0]


def reviews(n_users: int = 40, n_items: int = 40) -> list[str]:
    """Give reviews in the official shape: user u bought items u, u + 1 ... (modulo the catalogue), one a day."""
    events = [(f"A{u:03d}", f"B{(u + t) % n_items:03d}", 1_300_000_000 + (u + t) * DAY) for u in range(n_users) for t in range(6)]
    return [json.dumps({"reviewerID": u, "asin": i, "helpful": [0, 0], "reviewText": "good", "overall": 5.0, "unixReviewTime": t}) for u, i, t in events]


META = [repr({"asin": f"B{i:03d}", "title": f"Thing {i}", "categories": [["Things"]]}) for i in range(40)]


@pytest.fixture
def raw(tmp_path: Path) -> Callable[..., list[object]]:
    """Give a function that writes reviews and items and returns the words that build the domain x from them."""

    def write(lines: list[str] | bytes, meta: list[str] | bytes = META) -> list[object]:
        words: list[object] = ["data", "build", "x", "--config", "amazon2014"]
        for role, content in (("reviews", lines), ("meta", meta)):
            path = tmp_path / f"{role}_X.json.gz"
            path.write_bytes(content if isinstance(content, bytes) else gzip.compress("".join(f"{text}\n" for text in content).encode()))
            words += ["--set", f"{role}={path}"]
        return words

    return write


def complete(workspace: Workspace) -> list[str]:
    """Return the complete versions of data sets."""
    return sorted(str(p.parent.relative_to(workspace.root)) for p in (workspace.root / "data").rglob("manifest.json"))


@pytest.fixture
def two(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> Workspace:
    for name in ("sports", "beauty"):
        assert cli("data", "build", name, "--config", table_domain(name), "--quiet")[0] == 0
    return workspace


# F18: the disk is full.


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table of rows meet a full disk, as polars itself meets it."""
    write = dataset._write_parquet
    monkeypatch.setattr(dataset, "_write_parquet", lambda place, frame: write(FULL if getattr(place, "name", "") == "rows.parquet" else place, frame))


@needs_full_device
@pytest.mark.usefixtures("full_disk")
def test_f18_build(cli: Cli, workspace: Workspace, table_domain: TableDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("data", "build", "sports", "--config", table_domain("sports"), "--quiet")
    with monkeypatch.context() as space:
        space.setattr(dataset, "_write_parquet", lambda place, frame: frame.write_parquet(place))
        assert cli(*words)[0] == 0
    code, out, err = cli(*words, "--again")
    assert (code, out) == (5, "")
    assert "the disk is full: " in only_error(err)
    assert "v002/rows.parquet needs " in err
    assert " are free; fix: free some space" in err
    assert complete(workspace) == ["data/processed/sports/v001"]
    assert resolve(workspace, "sports", ["build"]).path.name == "v001"
    assert not (workspace.root / "data/processed/sports/v002/rows.parquet").exists()
    assert json.loads((workspace.root / "data/processed/sports/v002/failure.json").read_text())["exit_code"] == 5
    assert cli("data", "check", "sports", "--quiet")[0] == 0


@needs_full_device
def test_f18_mix(cli: Cli, two: Workspace, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("full_disk")
    code, _, err = cli("data", "mix", "sports", "beauty", "--quiet")
    assert code == 5
    assert "beauty_sports/v001/rows.parquet needs" in only_error(err)
    assert complete(two) == ["data/processed/beauty/v001", "data/processed/sports/v001"]


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("force", [True, False])
def test_f18_export(cli: Cli, two: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    out = tmp_path / "exports" / "trl"
    words = ("data", "export", "sports", "--format", "trl", "--out", out, "--quiet", *(["--force"] if force else []))
    if force:
        assert cli(*words)[0] == 0
        (out / "train.jsonl").write_text("older")
    before = {p.name: p.read_bytes() for p in out.iterdir()} if force else None

    def half(training_set: object, folder: Path) -> None:
        (folder / "train.jsonl").write_text("x" * 1000)
        full()

    monkeypatch.setitem(__import__("recmerge.stages.export", fromlist=["FORMATS"]).FORMATS, "trl", half)
    code, _, err = cli(*words)
    assert code == 5
    assert "needs more than 1,000 bytes" in only_error(err)
    assert ({p.name: p.read_bytes() for p in out.iterdir()} if out.exists() else None) == before
    assert list(out.parent.glob(".*")) == []


def test_f18_stats(cli: Cli, two: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("older")
    monkeypatch.setattr(os, "fsync", full)
    code, _, err = cli("data", "stats", "sports", "--out", page, "--force", "--quiet")
    assert code == 5
    assert "the disk is full" in only_error(err)
    assert [p.name for p in tmp_path.glob("*page*")] == ["page.html"]
    assert page.read_text() == "older"


@pytest.fixture
def mirror(tmp_path: Path) -> list[object]:
    """Give the words that fetch beauty from a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, lines in (("reviews_Beauty_5.json.gz", reviews()), ("meta_Beauty.json.gz", META)):
        (folder / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    return ["data", "fetch", "amazon2014", "--domains", "beauty", "--mirror", folder, "--quiet"]


@needs_full_device
def test_f18_fetch(cli: Cli, workspace: Workspace, mirror: list[object]) -> None:
    folder = workspace.root / "data/raw/amazon2014"
    folder.mkdir(parents=True)
    part = folder / "meta_Beauty.json.gz.part"
    part.symlink_to(FULL)
    code, _, err = cli(*mirror)
    assert code == 5
    assert f"the disk is full: {folder / 'meta_Beauty.json.gz'} has " in only_error(err)
    assert (folder / "reviews_Beauty_5.json.gz").is_file()  # what came before stays
    assert not (folder / "meta_Beauty.json.gz").exists()
    part.unlink()
    assert cli(*mirror)[0] == 0
    assert cli("data", "build", "beauty", "--config", "amazon2014", "--quiet")[0] == 0


# F19: the folder is read-only or forbidden.


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_f19_every_data_command(
    cli: Cli, two: Workspace, mirror: list[object], table_domain: TableDomain, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make = os.mkdir

    def refused(path: Any, *rest: Any, **words: Any) -> None:
        if str(two.root) in str(path):
            raise OSError(number, os.strerror(number), str(path))
        make(path, *rest, **words)

    before = complete(two)
    monkeypatch.setattr(os, "mkdir", refused)
    for words in (
        ["data", "build", "toys", "--config", table_domain("toys"), "--quiet"],
        ["data", "mix", "sports", "beauty", "--quiet"],
        ["data", "export", "sports", "--format", "trl", "--quiet"],
        ["data", "stats", "sports", "--quiet"],
        mirror,
    ):
        code, out, err = cli(*words)
        assert (code, out) == (5, ""), words
        assert str(two.root / "data") in only_error(err)
    assert complete(two) == before


def test_f19_a_file_where_a_folder_should_be(cli: Cli, two: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for words in (["export", "sports", "--format", "trl"], ["stats", "sports"]):
        code, _, err = cli("data", *words, "--out", tmp_path / "file" / "x", "--quiet")
        assert code == 5
        assert str(tmp_path / "file") in only_error(err)
    assert (tmp_path / "file").read_text() == "mine"


# F24 to F26: what a server or mirror gives.


def test_f24_what_came_first_is_what_may_come_again(cli: Cli, workspace: Workspace, mirror: list[object], tmp_path: Path) -> None:
    assert cli(*mirror)[0] == 0
    folder = workspace.root / "data/raw/amazon2014"
    lock = (folder / "lock.json").read_text()
    (folder / "meta_Beauty.json.gz").unlink()
    (tmp_path / "mirror" / "meta_Beauty.json.gz").write_bytes(gzip.compress(b"{'asin': 'B001', 'title': 'Another'}"))
    code, _, err = cli(*mirror)
    assert code == 6
    assert "has sha256 " in only_error(err)
    assert "lock.json recorded " in err
    assert not (folder / "meta_Beauty.json.gz").exists()
    assert not list(folder.glob("*.part*"))
    assert (folder / "lock.json").read_text() == lock
    (folder / "lock.json").unlink()
    assert cli(*mirror)[0] == 0  # asked for in so many words, the new file is taken


# F28 and F29: archives that swell or end early.


def test_f28_a_bomb(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    code, _, err = cli(*raw(gzip.compress(b"\n" * (100 << 20))), "--quiet")
    assert code == 3
    assert "swells to more than 200 times its size" in only_error(err)
    assert complete(workspace) == []


def test_f29_a_cut_or_damaged_gzip(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    whole = gzip.compress("\n".join(reviews()).encode())
    wrong_sum = whole[:-8] + bytes(4) + whole[-4:]
    for content, what in ((whole[:-20], f"at byte {len(whole) - 20}"), (wrong_sum, "damaged near byte")):
        code, _, err = cli(*raw(content), "--quiet")
        assert code == 3
        assert "reviews_X.json.gz is " in only_error(err)
        assert what in err
        assert "fix: fetch or copy the file again" in err
    meta = gzip.compress("\n".join(META).encode())
    code, _, err = cli(*raw(reviews(), meta[: len(meta) // 2]), "--quiet")
    assert code == 3
    assert "meta_X.json.gz is cut short" in only_error(err)
    assert complete(workspace) == []


# F30 and F31: bad lines.


def review(user: object = "A001", item: object = "B001", time: object = 1_300_000_000) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time})


BAD = {
    2: ("malformed", review()[:40]),
    4: ("malformed", "not json"),
    6: ("malformed", "[1, 2]"),
    8: ("malformed", review().replace('"asin":', '"asin"')),
    10: ("malformed", review() + "\0"),
    12: ("no_user", review(user=None)),
    14: ("no_user", review(user="  ")),
    16: ("no_item", json.dumps({"reviewerID": "A001", "unixReviewTime": 1})),
    18: ("timestamp_not_a_number", review(time="soon")),
    20: ("timestamp_not_a_number", review(time=[1])),
    22: ("timestamp_negative", review(time=-5)),
    24: ("timestamp_not_seconds", review(time=1_300_000_000_000)),
    26: ("timestamp_in_future", review(time=4_000_000_000)),
}


def test_f30_f31_bad_lines_are_put_aside_by_number_and_reason(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    good = reviews()
    unknown_time = good[-1].replace(good[-1].rsplit(": ", 1)[1], "null}")
    lines = [*good[:-1], unknown_time]
    clean = json.loads(cli(*raw(lines), "--json")[1])
    for number, (_, line) in sorted(BAD.items()):
        lines.insert(number - 1, line)
    lines.insert(0, "")  # a blank line is none, and has a number
    code, _, err = cli(*raw(lines), "--quiet")
    assert code == 3
    assert f"{len(BAD)} of {len(good) + len(BAD) + 40} lines cannot be used" in only_error(err)
    assert "at most 0.100% may be; first: reviews_X.json.gz:3 " in err
    assert f"all in {workspace.root}/data/processed/x/v002/rejects.jsonl" in err
    assert complete(workspace) == ["data/processed/x/v001"]
    code, out, err = cli(*raw(lines), "--json", "--set", "max_bad=0.1")
    assert code == 0, err
    document = json.loads(out)
    rejects = [json.loads(line) for line in (Path(document["run_dir"]) / "rejects.jsonl").read_text().splitlines()]
    assert sorted((r["line"], r["reason"]) for r in rejects) == [(number + 1, reason) for number, (reason, _) in sorted(BAD.items())]
    assert all((r["file"], list(r)) == ("reviews_X.json.gz", ["file", "line", "reason", "text"]) for r in rejects)
    files = {Path(o["path"]).name: o["sha256"] for o in document["outputs"]}
    assert {name: digest for name, digest in files.items() if name != "rejects.jsonl"} == {Path(o["path"]).name: o["sha256"] for o in clean["outputs"]}
    assert document["facts"]["counts"]["blank_timestamps"] == 1


def test_f30_bad_items(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    broken = ["{'asin': 'B001', 'title': ", "{'asin': 'B002', 'title': open('x')}", "{[]: 1, 'asin': 'B003'}", "{'title': 'nameless'}"]
    words = raw(reviews(), [*META, *broken])
    code, _, err = cli(*words, "--quiet")
    assert code == 3
    assert "4 of 284 lines cannot be used (3 malformed, 1 no_item)" in only_error(err)
    assert cli(*words, "--quiet", "--set", "max_bad=0.1")[0] == 0
    assert not Path("x").exists()


def test_f31_wrong_types_do_not_stop_the_build(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    lines = [line.replace('"unixReviewTime": 1', '"unixReviewTime": 1.0e9, "x": 1') if n == 5 else line for n, line in enumerate(reviews())]
    lines[7] = lines[7].replace('"A001"', "12345678901234567890123")
    code, out, err = cli(*raw(lines, [repr({"asin": f"B{i:03d}", "title": [i]}) for i in range(40)]), "--json")
    assert code == 0, err
    items = pl.read_parquet(Path(json.loads(out)["run_dir"]) / "items.parquet")
    assert items["title"].to_list()[:2] == ["[0]", "[1]"]


# F32 and F33: order, and nothing left.


def test_f32_shuffled_lines_with_repeats_and_ties_give_the_same_bytes(cli: Cli, workspace: Workspace, raw: Callable[..., list[object]]) -> None:
    lines = [line.replace(str(t), str(t // (3 * DAY) * 3 * DAY)) for line in reviews() for t in [json.loads(line)["unixReviewTime"]]]
    lines += lines[:20]
    digests = []
    for seed in (0, 1):
        random.Random(seed).shuffle(lines)
        document = json.loads(cli(*raw(lines, random.Random(seed).sample(META, len(META))), "--json")[1])
        digests.append({Path(o["path"]).name: o["sha256"] for o in document["outputs"]})
        assert document["facts"]["dropped_events"]["repeated"] == 20
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("lines", "words", "what"),
    [
        (reviews()[:30], [], "the 5-core is empty: 30 events went in"),
        (reviews(n_items=20), [], "n_candidates 30 needs 29 negatives"),
        (reviews(), ["--split", "time", "--set", "valid_from=2030-01-01", "--set", "test_from=2031-01-01"], "leave no "),
        ([line.replace('"asin": "B', '"asin": "C') for line in reviews()], [], "holds no reviewed items"),
        ([], [], "holds no reviews"),
    ],
)
def test_f33_what_emptied_the_data_is_named(
    cli: Cli, workspace: Workspace, raw: Callable[..., list[object]], lines: list[str], words: list[str], what: str
) -> None:
    code, _, err = cli(*raw(lines), *words, "--quiet")
    assert code == 3
    assert what in only_error(err)
    assert complete(workspace) == []


# F38 and F42: what a check finds.


def test_f38_equal_titles_are_never_candidates_together(cli: Cli, two: Workspace, raw: Callable[..., list[object]]) -> None:
    twins = [repr({"asin": f"B{i:03d}", "title": f"Thing {i // 2 if i < 8 else i}"}) for i in range(40)]
    code, out, _ = cli(*raw(reviews(), twins), "--json", "--set", "n_candidates=20")
    assert code == 0
    folder = Path(json.loads(out)["run_dir"])
    titles = dict(pl.read_parquet(folder / "items.parquet").select("item_id", "title").iter_rows())
    path = folder / "candidates.parquet"
    asked = pl.read_parquet(path)
    assert all(len({titles[i] for i in listed}) == 20 for listed in asked["candidates"])
    assert cli("data", "check", "x", "--quiet")[0] == 0
    split, user, target, listed = next(row for row in asked.iter_rows() if any(i < "B008" for i in row[3] if i != row[2]))
    first = next(i for i in listed if i < "B008" and i != target)
    twin, victim = f"B{int(first[1:]) ^ 1:03d}", next(i for i in listed if i not in (first, target))
    spoilt = pl.Series([[twin if i == victim else i for i in listed]])
    here = (pl.col("split") == split) & (pl.col("user_id") == user)
    asked.with_columns(pl.when(here).then(pl.lit(spoilt)).otherwise("candidates").alias("candidates")).write_parquet(path)
    code, _, err = cli("data", "check", "x", "--quiet")
    assert code == 3
    assert f"user {user} " in only_error(err)
    assert "has two candidates of one title" in err


def test_a_damaged_data_set_is_named_by_every_command(cli: Cli, two: Workspace) -> None:
    path = two.root / "data/processed/sports/v001/events.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    for words in (["check", "sports"], ["stats", "sports"], ["export", "sports", "--format", "trl"], ["mix", "sports", "beauty"]):
        code, _, err = cli("data", *words, "--quiet")
        assert code == 4, words
        assert f"{path} cannot be read" in only_error(err)
    assert complete(two) == ["data/processed/beauty/v001", "data/processed/sports/v001"]
    assert not (two.root / "data/exports").exists()
