import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recmerge.data.building import build_clean
from recmerge.data.sources import SOURCES
from recmerge.data.statistics import curves, describe_set
from recmerge.data.training_set import TrainingSet
from recmerge.evaluation.report.data_set import stats_page, stats_tables


@pytest.fixture
def described(table_domain: Callable[..., Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe two small domains, one of them with a hostile name."""
    import polars as pl

    domains = {}
    for name, shown in (("sports", "sports"), ("beauty", "<b>&beauty")):
        folder = table_domain(name).parent
        files = {"interactions": folder / f"{name}_interactions.csv", "items": folder / f"{name}_items.csv"}
        columns = {c: c for c in ("user_id", "item_id", "timestamp", "title", "brand", "category")}
        domains[shown] = build_clean(shown, SOURCES["table"].read(files, columns))[0]
    rows = pl.concat([d.rows.select(pl.lit(name).alias("domain"), pl.all()) for name, d in domains.items()])
    return describe_set(TrainingSet("both", domains, rows)), {name: curves(d) for name, d in domains.items()}


def test_the_tables_hold_every_figure(described: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, _ = described
    counts, spreads, future = stats_tables(document)
    assert list(counts.columns) == ["", "<b>&beauty", "sports"]
    assert ["users", "60", "60"] in counts.rows
    assert ["split", "leave_one_out", "leave_one_out"] in counts.rows
    assert any(row[0].startswith("users shared") and row[1] == "60" for row in counts.rows)
    day = next(row for row in counts.rows if row[0] == "first timestamp")[1]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", day)
    assert [row[0] for row in spreads.rows[:4]] == ["<b>&beauty events per user", "sports events per user", "<b>&beauty test history", "sports test history"]
    assert [row[0] for row in future.rows] == [key.replace("_", " ") for key in document["domains"]["sports"]["future"]]
    assert all(len(row) == len(table.columns) for table in (counts, spreads, future) for row in table.rows)


def test_the_page_draws_lengths_popularity_words_and_ties(described: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, drawn = described
    page = stats_page(document, drawn, "mix/both@v001")
    svgs = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.DOTALL)
    names = [ET.fromstring(svg).get("aria-label") for svg in svgs]
    assert [name.partition(":")[0] for name in names if name] == ["Line chart", "Line chart", "Line chart", "Bar chart"]
    assert "mix/both@v001" in page
    assert "<b>&beauty" not in page
    assert "&lt;b&gt;&amp;beauty" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    assert stats_page(document, drawn, "mix/both@v001") == page


def test_unknown_times_are_warned_of(described: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, drawn = described
    assert "Events without a time" not in stats_page(document, drawn, "x")
    document["domains"]["sports"]["blank_timestamps"] = 1234
    assert "Events without a time: sports 1,234." in stats_page(document, drawn, "x")
