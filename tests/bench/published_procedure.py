"""What the published WeaveRec scripts do to make a domain's data, told again in plain Python, to time `recmerge data build` against.

usage: published_procedure.py REVIEWS META OUT_DIR

Every line is parsed as a literal (`ast.literal_eval` stands for their `eval`), an id is its place in a list, found by `list.index` for every
interaction, candidates are drawn one question at a time, without a seed, and prompts are written at once. Nothing is filtered; an item
without a title is called nan.
"""

import ast
import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

N_NEGATIVES, N_ANSWERS, N_ROWS = 29, 5, 30_000
SYSTEM = "You are a helpful recommendation assistant."


def literals(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [ast.literal_eval(line) for line in f]


def histories(reviews: list[dict[str, Any]], users: list[str], items: list[str]) -> dict[int, list[int]]:
    """Return each user's items by time; a day's stay in the order of the file."""
    found: dict[int, list[int]] = {}
    for review in sorted(reviews, key=lambda r: r["unixReviewTime"]):
        found.setdefault(users.index(review["reviewerID"]), []).append(items.index(review["asin"]))
    return found


def question(history: list[int], target: int, titles: list[str]) -> dict[str, Any]:
    """Write one question; as published, the negatives may hold the target or items of the history."""
    negatives = [random.randrange(len(titles)) for _ in range(N_NEGATIVES)]
    candidates = [target, *negatives]
    random.shuffle(candidates)
    answer = [target, *random.sample(negatives, N_ANSWERS - 1)]
    shown = [" || ".join(titles[i] for i in part) for part in (history, candidates)]
    user = f"The user has bought: [{shown[0]}]. Which {N_ANSWERS} of the candidates come next, the most likely first? Candidates: [{shown[1]}] The titles:"
    roles = {"system": SYSTEM, "user": user, "assistant": " || ".join(titles[i] for i in answer)}
    return {"messages": [{"role": role, "content": text} for role, text in roles.items()]}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    reviews_path, meta_path, out = map(Path, sys.argv[1:])
    reviews, meta = literals(reviews_path), literals(meta_path)
    users, items = list({r["reviewerID"] for r in reviews}), list({r["asin"] for r in reviews})
    random.shuffle(users)
    random.shuffle(items)
    named = {m["asin"]: m.get("title", "nan") for m in meta}
    titles = [named.get(item, "nan") for item in items]
    train, valid, test = [], [], []
    for bought in histories(reviews, users, items).values():
        train += [question(bought[:k], bought[k], titles) for k in range(1, len(bought) - 2)]
        valid.append(question(bought[:-2], bought[-2], titles))
        test.append(question(bought[:-1], bought[-1], titles))
    rows = random.sample(train, min(N_ROWS, len(train))) + valid
    random.shuffle(rows)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "train.jsonl", rows)
    write(out / "test.jsonl", test)
    print(json.dumps({"users": len(test), "rows": len(train)}))


if __name__ == "__main__":
    main()
