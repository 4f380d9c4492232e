"""The README's tables of results, written from `runs/published`: `python -m tests.figures` brings them up to date, a test holds them to it.

A table stands below a line `<!-- figures: ABLATION [target=T] [settings=S] -->` and ends at the next empty line. With `by=settings` it has a row
for each setting, NDCG@1 of each system, and the last system's difference from the baseline. With `across=target` it has a row for each system and
a column for each target: NDCG@1 with its interval, NDCG@5, and whether NDCG@1 is above (▲) or below (▼) the baseline's by more than chance
explains, p of at most .05 after Holm's correction over the column. In tables with a column of differences p is after Holm's correction over the table.
"""

import csv
import re
import shlex
from pathlib import Path

from recmerge.evaluation.significance import holm
from tests.conftest import ROOT

README = ROOT / "README.md"
PUBLISHED = ROOT / "runs" / "published"
_BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n)(?:.+\n)*")
_SURE = 0.05
_OTHERS = ("ndcg@5", "hr@5", "mrr")


def updated(text: str) -> str:
    """Return the README's text with every table of figures written anew."""
    return _BLOCK.sub(lambda m: m[1] + "\n".join(table(*_asked(m[2]))) + "\n", text)


def _asked(words: str) -> tuple[Path, dict[str, str]]:
    name, *filters = shlex.split(words)
    return PUBLISHED / name / "table.csv", dict(f.split("=", 1) for f in filters)


def table(path: Path, filters: dict[str, str]) -> list[str]:
    """Return the Markdown lines of one published table.

    Args:
        path: A `table.csv`.
        filters: Values that columns must have; `settings` is "" unless named.
    """
    by, across = filters.pop("by", None), filters.pop("across", None)
    wanted = filters if by else {"settings": "", **filters}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[k] == v for k, v in wanted.items())]
    assert rows, f"{path} has no rows with {wanted}"
    if by:
        return _curve(rows, by)
    if across:
        return _across(rows, across)
    baseline = next(row["system"] for row in rows if row["is_baseline"] == "True")
    _adjust(rows)
    head = ["system", "NDCG@1 [95 %]", "NDCG@5", "HR@5", "MRR", f"NDCG@1 minus {baseline} [95 %], p (Holm)"]
    return [_line(head), _line(["---"] * len(head)), *(_line(_cells(row)) for row in rows)]


def _adjust(rows: list[dict[str, str]]) -> None:
    """Put Holm's correction over the table in the place of each p of NDCG@1."""
    compared = [row for row in rows if row["ndcg@1_p"]]
    for row, p in zip(compared, holm([float(row["ndcg@1_p"]) for row in compared]), strict=True):
        row["ndcg@1_p"] = str(p)


def _across(rows: list[dict[str, str]], across: str) -> list[str]:
    """Return a table with a column for each value of one column."""
    columns: dict[str, dict[str, str]] = {}
    for row in rows:
        columns.setdefault(row[across], {})[row["system"]] = f"{_cells(row)[1]} / {_short(row['ndcg@5'])}"
    for value, cells in columns.items():
        column = [row for row in rows if row[across] == value]
        _adjust(column)
        for row in column:
            if row["ndcg@1_p"] and float(row["ndcg@1_p"]) <= _SURE:
                cells[row["system"]] += " ▲" if float(row["ndcg@1_difference"]) > 0 else " ▼"
    head = ["NDCG@1 [95 %] / @5", *(value.capitalize() for value in columns)]
    systems = dict.fromkeys(row["system"] for row in rows)
    return [_line(head), _line(["---"] * len(head)), *(_line([s, *(cells.get(s, "") for cells in columns.values())]) for s in systems)]


def _curve(rows: list[dict[str, str]], by: str) -> list[str]:
    """Return a table with a line for each value of one column; chance is the same in all."""
    lines: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["ndcg@1_low"]:
            lines.setdefault(row[by], []).append(row)
    systems = [row["system"] for row in next(iter(lines.values()))]
    baseline = next(row["system"] for row in rows if row["is_baseline"] == "True")
    head = ["buyers", *systems, f"{systems[-1]} minus {baseline} [95 %], p"]
    body = [[f"{int(value.rpartition('=')[2]):,}", *(_short(row["ndcg@1"]) for row in line), _difference(line[-1])] for value, line in lines.items()]
    return [_line(head), _line(["---"] * len(head)), *map(_line, body)]


def _difference(row: dict[str, str]) -> str:
    if not row["ndcg@1_difference"]:
        return ""
    low, high = _signed(row["ndcg@1_difference_low"]), _signed(row["ndcg@1_difference_high"])
    return f"{_signed(row['ndcg@1_difference'])} [{low}, {high}], {_short(row['ndcg@1_p'])}"


def _cells(row: dict[str, str]) -> list[str]:
    value = _short(row["ndcg@1"]) + (f" [{_short(row['ndcg@1_low'])}, {_short(row['ndcg@1_high'])}]" if row["ndcg@1_low"] else "")
    return [row["system"], value, *(_short(row[m]) for m in _OTHERS), _difference(row)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells).rstrip() + " |"


def _short(number: str) -> str:
    return f"{float(number):.3f}".removeprefix("0")


def _signed(number: str) -> str:
    return f"{float(number):+.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
