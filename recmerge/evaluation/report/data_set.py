"""The tables and the page of one data set, from the document of `data stats`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from recmerge.evaluation.report.charts import Bar, Line
from recmerge.evaluation.report.page import BarChart, LineChart, Note, Section, Table, render_report

Curves = Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]  # by domain and name

_TIES = {
    "tied_share": "targets tied",
    "tied_events_share": "events tied",
    "one_time_share": "users of one time",
}
_FUTURE = "future"
_PERCENTILES = "Percentiles by nearest rank. Histories are those of the test. Words stand between white space."
_FUTURE_NOTE = (
    "What a model trained on all training events can know of a time after a test event (Ji et al., 2023). Leave-one-out cannot prevent it; under "
    "a time split the last three rows are zero."
)
_COUNTS_NOTE = (
    "Rows: what there is to train on, of each domain before it was mixed. Density: events per user and item. Top decile share: the events of the tenth of "
    "the items that was bought most. Gini: how unequal the events of items are, 0 to 1. Equal titles: items less different titles."
)


def stats_tables(document: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a data set, one column a domain.

    Args:
        document: What `describe_set` returns.

    Returns:
        Counts, percentiles, and how far training and test overlap in time.
    """
    domains: Mapping[str, Mapping[str, Any]] = document["domains"]
    keys = list(dict.fromkeys(key for d in domains.values() for key, value in d.items() if not isinstance(value, dict)))
    counts = [[key.replace("_", " "), *(_cell(key, d) for d in domains.values())] for key in keys]
    counts += [[key.replace("_", " "), _number(n), *[""] * (len(domains) - 1)] for key, n in document["shared_users"].items()]
    first = next(iter(domains.values()))
    spreads = [key for key, value in first.items() if isinstance(value, dict) and key != _FUTURE]
    spread_rows = [[f"{name} {key.replace('_', ' ')}", *(_number(v) for v in d[key].values())] for key in spreads for name, d in domains.items()]
    future = [[key.replace("_", " "), *(_number(d[_FUTURE][key]) for d in domains.values())] for key in first[_FUTURE]]
    return [
        Table(f"{document['name']}: {document['rows']:,} training rows", ["", *domains], counts, _COUNTS_NOTE),
        Table("Percentiles", ["", *first[spreads[0]]], spread_rows, _PERCENTILES),
        Table("Training and test in time", ["", *domains], future, _FUTURE_NOTE),
    ]


def stats_page(document: Mapping[str, Any], curves: Curves, label: str) -> str:
    """Return the page of a data set: its tables, and its lengths, popularity, titles and ties drawn.

    Args:
        document: What `describe_set` returns.
        curves: What `curves` of the statistics returns, by domain.
        label: Which run the data set is.

    Returns:
        One HTML page that loads nothing.
    """
    domains: Mapping[str, Mapping[str, Any]] = document["domains"]
    counts, spreads, future = stats_tables(document)
    sections: list[Section] = [counts, *_charts(curves, document.get("tokenizer")), _tie_bars(domains), spreads, future, *_warnings(domains)]
    tiles = [(key, f"{sum(d[key] for d in domains.values()):,}") for key in ("users", "items", "events")]
    facts = [("training rows", f"{document['rows']:,}"), *tiles]
    return render_report(f"Data set {document['name']}", sections, subtitle=f"{', '.join(domains)} · {label}", facts=facts)


def _charts(curves: Curves, tokenizer: str | None) -> list[Section]:
    lines = {key: [Line(name, *found[key]) for name, found in curves.items()] for key in next(iter(curves.values()))}
    even = Line("every item alike", [0.0, 1.0], [0.0, 1.0], dashed=True)
    return [
        LineChart(
            "Length of test histories",
            lines["test_history"],
            "n (events before the test target)",
            "share of test users with n or more",
            "Drawn up to the 99th percentile.",
        ),
        LineChart(
            "Popularity of items",
            [*lines["popularity"], even],
            "share of items, the most bought first",
            "share of all events",
            "Lorenz curve from the head to the long tail: the farther above the dashed line, the more of the events belong to few items.",
        ),
        *(
            LineChart(
                f"{what.capitalize()} of titles",
                lines[f"title_{what}"],
                f"n ({'words between white space' if what == 'words' else f'tokens of {tokenizer}'})",
                f"share of titles of n {what}",
                "Drawn up to the 99th percentile.",
            )
            for what in ("words", "tokens")
            if f"title_{what}" in lines
        ),
    ]


def _tie_bars(domains: Mapping[str, Mapping[str, Any]]) -> BarChart:
    bars = [Bar(f"{name}: {text}" if len(domains) > 1 else text, d[key]) for key, text in _TIES.items() for name, d in domains.items()]
    note = (
        "Targets tied: test users whose target has the time of an event beside it. Events tied: at the time of their user's event before. Users of one "
        "time: all their events have it. The order of such events is a convention (tie_break), and so is which of them is the target."
    )
    return BarChart("Ties in time", bars, "share (0 to 1)", note=note)


def _warnings(domains: Mapping[str, Mapping[str, Any]]) -> list[Note]:
    blank = {name: d["blank_timestamps"] for name, d in domains.items() if d["blank_timestamps"]}
    if not blank:
        return []
    shown = ", ".join(f"{name} {n:,}" for name, n in blank.items())
    return [Note(f"Events without a time: {shown}. Their users keep the order of the file, and nothing here that compares times knows them.", warning=True)]


def _cell(key: str, domain: Mapping[str, Any]) -> str:
    value = domain.get(key, "")
    return _day(value) if key.endswith("_timestamp") and value != "" else _number(value)


def _day(seconds: int | None) -> str:
    return "unknown" if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and value >= 1 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
