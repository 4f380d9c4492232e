"""The README's tables of results, written from `runs/published`: `python -m tests.figures` brings them up to date, a test holds them to it.

A table stands below a line `<!-- figures: ABLATION [target=T] [settings=S] -->` and ends at the next empty line.
"""

import csv
import re
import shlex
from pathlib import Path

from tests.conftest import ROOT

README = ROOT / "README.md"
PUBLISHED = ROOT / "runs" / "published"
_BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n)(?:.+\n)*")
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
    wanted = {"settings": "", **filters}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row[k] == v for k, v in wanted.items())]
    assert rows, f"{path} has no rows with {wanted}"
    baseline = next(row["system"] for row in rows if row["is_baseline"] == "True")
    head = ["system", "NDCG@1 [95 %]", "NDCG@5", "HR@5", "MRR", f"NDCG@1 minus {baseline} [95 %], p"]
    return [_line(head), _line(["---"] * len(head)), *(_line(_cells(row)) for row in rows)]


def _cells(row: dict[str, str]) -> list[str]:
    value = _short(row["ndcg@1"]) + (f" [{_short(row['ndcg@1_low'])}, {_short(row['ndcg@1_high'])}]" if row["ndcg@1_low"] else "")
    difference = ""
    if row["ndcg@1_difference"]:
        low, high = _signed(row["ndcg@1_difference_low"]), _signed(row["ndcg@1_difference_high"])
        difference = f"{_signed(row['ndcg@1_difference'])} [{low}, {high}], {_short(row['ndcg@1_p'])}"
    return [row["system"], value, *(_short(row[m]) for m in _OTHERS), difference]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells).rstrip() + " |"


def _short(number: str) -> str:
    return f"{float(number):.3f}".removeprefix("0")


def _signed(number: str) -> str:
    return f"{float(number):+.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
