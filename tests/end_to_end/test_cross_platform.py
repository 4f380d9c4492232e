"""A shop and a film site are a pair like any other: real Toys and MovieLens-1M, in both directions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recmerge.runs import Workspace

Cli = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.slow
SIZES = {"toys": (19_412, 11_924, 167_597), "ml-1m": (6_040, 3_416, 999_611)}  # users, items, events


def document(cli: Cli, *words: object) -> dict[str, Any]:
    code, out, err = cli("data", *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def pair(cli: Cli, workspace: Workspace, shared: Path) -> Workspace:
    for name, folder in (("toys", "amazon2014/toys"), ("ml-1m", "movielens-1m")):
        tables = shared / "data" / folder
        files = ["--interactions", tables / "interactions.csv.gz", "--items", tables / "items.csv.gz"]
        genres = ["--set", "columns.category=genres"] if name == "ml-1m" else []
        counts = document(cli, "build", name, "--config", "table", *files, *genres, "--set", "max_rows=3000")["facts"]["counts"]
        assert (counts["users"], counts["items"], counts["events"]) == SIZES[name]
        assert counts["rows"] == 3000
    return workspace


def test_toys_and_movielens_1m(cli: Cli, pair: Workspace) -> None:
    one = document(cli, "mix", "toys", "ml-1m")
    two = document(cli, "mix", "ml-1m", "toys")
    assert (one["name"], one["already_done"], two["already_done"]) == ("ml-1m_toys", False, True)
    assert one["run_dir"] == two["run_dir"]
    assert one["facts"]["rows"] == {"ml-1m": 3000, "toys": 3000}
    for name, n_rows in (("toys", 3000), ("ml-1m", 3000), ("toys_ml-1m", 6000), ("ml-1m_toys", 6000)):
        checked = document(cli, "check", name)
        assert (checked["faults"], checked["rows"]) == (0, n_rows)
    assert "users_shared_ml-1m_toys" not in checked["notes"]
    stats = document(cli, "stats", "toys_ml-1m")
    assert stats["rows_by_domain"] == {"ml-1m": 3000, "toys": 3000}
    films, toys = stats["domains"]["ml-1m"], stats["domains"]["toys"]
    assert {name: (d["users"], d["items"], d["events"]) for name, d in stats["domains"].items()} == SIZES
    assert films["test_history"]["p0"] >= 4  # of 5 events and more
    assert films["density"] == pytest.approx(999_611 / (6_040 * 3_416), abs=1e-6)
    assert films["one_time_share"] < toys["one_time_share"]  # seconds there, days here
    page = Path(stats["outputs"][0]["path"]).read_text(encoding="utf-8")
    assert page.count('<svg class="chart"') == 5
    assert all(name in page for name in ("ml-1m", "toys"))
