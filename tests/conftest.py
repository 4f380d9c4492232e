"""What many tests need: a workspace, the command line, small domains, a tiny base model, the real data."""

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recmerge.runs import Workspace

ROOT = Path(__file__).resolve().parent.parent

# Nothing in a test may reach a network, and torch's threads must not fight over few cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_BRANDS = ("Coleman", "Everlast", "Speedo", "Wilson", "Gaiam", "Bosch", "L'Oréal", "LEGO")
_KINDS = {
    "sports": ("Yoga Mat", "Camping Stove", "Swim Goggles", "Tennis Racket", "Kettlebell"),
    "beauty": ("Hair Dryer", "Face Cream", "Nail Polish", "Lip Balm", "Bath Sponge"),
    "toys": ("Puzzle", "Doll House", "Race Car", "Board Game", "Building Set"),
}
_N_ITEMS = 40  # no user owns more than 8 of them, so that 29 negatives remain


def _shared_dir() -> Path | None:
    named = os.environ.get("RECMERGE_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "data").is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses real data, and skip what this machine cannot run."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
        if item.get_closest_marker("shared") and _shared_dir() is None:
            item.add_marker(pytest.mark.skip(reason="no real data: set RECMERGE_SHARED or put it at ../shared"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; the test is skipped without it."""
    folder = _shared_dir()
    if folder is None:
        pytest.skip("no real data: set RECMERGE_SHARED or put it at ../shared")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is costly to find again is kept for the session, by all its workers, and nowhere else."""
    folder = tmp_path_factory.getbasetemp()
    os.environ["RECMERGE_CACHE"] = str((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace that is also the current folder."""
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.delenv("RECMERGE_WORKSPACE", raising=False)
    return Workspace(root)


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command line in this process; gives (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        from recmerge.cli.main import main

        capsys.readouterr()
        code = main([str(w) for w in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write_domain_tables(folder: Path, name: str, n_users: int = 60, seed: int = 0) -> Path:
    """Write a small made-up domain as CSV tables and the YAML that builds it.

    Every user stays within two of five kinds of items, so there is something to learn. From 40 users
    on, the 5-core keeps all 40 items: every user takes 5 of the least taken ones, beside 2 or 3 others.

    Args:
        folder: Where `<name>_interactions.csv`, `<name>_items.csv` and `<name>.yaml` go.
        name: The domain; sports, beauty and toys have titles of their own.
        n_users: How many users.
        seed: Another seed gives other users.

    Returns:
        The YAML's path, for `recmerge data build NAME --config PATH`.
    """
    draw = random.Random(f"{name}-{seed}")
    kinds = _KINDS.get(name, _KINDS["sports"])
    items = [(f"{name[:1].upper()}{i:03d}", kinds[i % len(kinds)], _BRANDS[i % len(_BRANDS)]) for i in range(_N_ITEMS)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}_items.csv").open("w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(["item_id", "title", "brand", "category"])
        rows.writerows([item_id, f"{brand} {kind}, Model {item_id[1:]} &amp; Case", brand, kind] for item_id, kind, brand in items)
    with (folder / f"{name}_interactions.csv").open("w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(["user_id", "item_id", "timestamp"])
        taken = [0] * _N_ITEMS
        for user in range(n_users):
            liked = {user % len(kinds), draw.randrange(len(kinds))}
            choice = [i for i in range(_N_ITEMS) if i % len(kinds) in liked]
            draw.shuffle(choice)
            choice.sort(key=lambda i: taken[i])
            own = choice[:5] + draw.sample(choice[5:], min(draw.randint(2, 3), len(choice) - 5))
            draw.shuffle(own)
            for item in own:
                taken[item] += 1
            day = 1_300_000_000 + draw.randrange(1000) * 86_400
            for item in own:
                rows.writerow([f"u{user:03d}", items[item][0], day])
                day += draw.choice([0, 86_400, 7 * 86_400])  # some events share a day, as Amazon's do
    config = folder / f"{name}.yaml"
    columns = "{user_id: user_id, item_id: item_id, timestamp: timestamp, title: title, brand: brand, category: category}"
    config.write_text(f"source: table\ninteractions: {name}_interactions.csv\nitems: {name}_items.csv\ncolumns: {columns}\n", encoding="utf-8")
    return config


@pytest.fixture
def table_domain(tmp_path: Path) -> Callable[..., Path]:
    """Give a function (name, n_users=60, seed=0) that writes a small domain; see `write_domain_tables`."""

    def write(name: str, n_users: int = 60, seed: int = 0) -> Path:
        return write_domain_tables(tmp_path / "tables", name, n_users, seed)

    return write


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a base of some thousand parameters, made by `recmerge base pretrain`."""
    from recmerge.cli.main import main

    folder = tmp_path_factory.mktemp("base")
    for name in _KINDS:
        write_domain_tables(folder, name)
    catalogues = "\n".join(f"  {name}: {name}_items.csv" for name in _KINDS)
    config = folder / "tiny.yaml"
    settings = (
        "vocab_size: 400\nhidden_size: 32\nlayers: 2\nheads: 4\nkv_heads: 2\nintermediate_size: 64\nmax_length: 128\nsteps: 20\nbatch_size: 8\ndtype: float32\n"
    )
    config.write_text(f"catalogues:\n{catalogues}\n{settings}", encoding="utf-8")
    root = folder / "workspace"
    code = main(["base", "pretrain", "--config", str(config), "--name", "tiny", "--workspace", str(root), "--quiet"])
    assert code == 0
    return root / "runs" / "base" / "tiny" / "v001" / "model"


def answer(cli: Any, *words: object) -> dict[str, Any]:
    """Return the JSON document of a command that succeeds."""
    code, out, err = cli(*words, "--json")
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def refusal(cli: Any, *words: object) -> tuple[int, str]:
    """Return the exit code and the one line of a command that is refused."""
    code, out, err = cli(*words)
    assert out == ""
    assert err.startswith("error[")
    assert err.count("\n") == 1
    return code, err
