"""How time and memory of the stages grow with users, candidates, history and title length, from once to eight times as much.

usage: bench_growth.py [--out FOLDER]

Titles, and the histories that are built, are those of real Sports where RECMERGE_SHARED names a folder of real data, of the bundled sample elsewhere. The
bundled base model, float32. Seconds are of one core's computing, so that a busy machine changes little; memory is the process's highest. Each point is a
process of its own. With --out, a figure and the numbers are written there.
"""

import argparse
import csv
import gzip
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = ROOT / "recmerge/assets/base/nano"
FACTORS = (1, 2, 4, 8)
# What is asked of a stage at factor 1: users, candidates, purchases before the question, words of a title.
LEAST = {
    "score": {"users": 32, "candidates": 10, "history": 5, "title words": 4},
    "train": {"users": 64, "history": 4, "title words": 4},
    "rank": {"users": 500, "candidates": 10, "history": 5},
}
# The figure stands by itself, on a light or a dark page.
_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#64748b")
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#64748b}.grid{stroke:#94a3b855}.axis{stroke:#64748b}.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:5 4}"
    + "".join(f".s{i}{{stroke:{colour}}}" for i, colour in enumerate(_COLOURS))
    + "</style>"
)


def tables() -> Path:
    shared = os.environ.get("RECMERGE_SHARED")
    return Path(shared) / "data/amazon2014/sports" if shared else ROOT / "recmerge/assets/sample/sports"


def words_of_titles() -> list[str]:
    with gzip.open(tables() / "items.csv.gz", "rt", newline="", encoding="utf-8") as f:
        return [word for row in csv.DictReader(f) for word in row["title"].split()]


def made(sizes: dict[str, int]) -> tuple[list[Any], dict[str, str]]:
    """Return questions of the wanted sizes, and titles by item."""
    from recmerge.data.dataset import Example

    draw = random.Random(0)
    words = words_of_titles()
    titles = {f"I{i}": " ".join(draw.choices(words, k=sizes.get("title words", 8))) for i in range(2000)}
    items, n_candidates = sorted(titles), sizes.get("candidates", 30)
    found = []
    for user in range(sizes["users"]):
        *history, target = draw.sample(items, sizes["history"] + 1)
        candidates = (*draw.sample([i for i in items if i != target], n_candidates - 1), target)
        found.append(Example("sports", f"U{user}", tuple(history), target, candidates))
    return found, titles


def encoder(style: str) -> Any:
    from transformers import AutoTokenizer

    from recmerge.lm.encoding import Encoder, PromptSettings

    return Encoder(AutoTokenizer.from_pretrained(BASE), PromptSettings(style, 8192))


def score(sizes: dict[str, int]) -> Callable[[], object]:
    """Score listwise prompts with the language model."""
    from transformers import AutoModelForCausalLM

    from recmerge.rankers.llm import LlmRanker

    asked, titles = made(sizes)
    ranker = LlmRanker(AutoModelForCausalLM.from_pretrained(BASE).eval(), encoder("listwise"), titles)
    ranker.score(asked[:1])
    return lambda: ranker.score(asked)


def train(sizes: dict[str, int]) -> Callable[[], object]:
    """Pass forward and back over open prompts, all titles of a history predicted, sixteen sequences a step."""
    import torch
    from transformers import AutoModelForCausalLM

    from recmerge.lm.fused_loss import linear_cross_entropy
    from recmerge.lm.lora import new_lora

    asked, titles = made({**sizes, "candidates": 2})
    words = encoder("open")
    base = AutoModelForCausalLM.from_pretrained(BASE)
    model = new_lora(base, rank=16, alpha=32, dropout=0.0, target_modules="all-linear", use_rslora=False, init_seed=0).train()
    rows = [[token for item in e.history for token in words.answer(titles[item])] for e in asked]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    def work() -> None:
        for part in ids.split(16):
            hidden = model.get_base_model().get_decoder()(input_ids=part, use_cache=False).last_hidden_state[:, :-1]
            linear_cross_entropy(hidden.flatten(0, 1), model.get_output_embeddings().weight, part[:, 1:].flatten()).backward()

    return work


def rank(sizes: dict[str, int]) -> Callable[[], object]:
    """Rank with SASRec, which was given its weights and no training."""
    import torch

    from recmerge.rankers.sasrec import SasRecRanker
    from recmerge.rankers.sequential.purchases import number
    from recmerge.rankers.sequential.ranker import Fitted

    asked, titles = made(sizes)
    ranker = SasRecRanker()
    torch.manual_seed(0)
    ranker.fitted["sports"] = Fitted(number(sorted(titles)), {}, {}, ranker.build({"n_items": len(titles)}).eval())
    return lambda: ranker.score(asked)


def build(sizes: dict[str, int]) -> Callable[[], object]:
    """Build a domain with every real user so many times over, under other names."""
    from recmerge.cli.main import main as command

    folder = Path(tempfile.mkdtemp())
    with gzip.open(tables() / "interactions.csv.gz", "rt", newline="", encoding="utf-8") as f:
        header, *lines = f.read().splitlines()
    with gzip.open(folder / "interactions.csv.gz", "wt", encoding="utf-8", compresslevel=1) as f:
        f.write(header + "\n")
        for copy in range(sizes["users"]):
            f.writelines(f"{copy}{line}\n" for line in lines)
    told = ["--set", f"interactions={folder}/interactions.csv.gz", "--set", f"items={tables()}/items.csv.gz", "--workspace", str(folder)]

    def work() -> None:
        if command(["data", "build", "sports", "--config", "table", *told]):
            raise RuntimeError("the build failed")

    return work


STAGES = {"build": build, "train": train, "score": score, "rank": rank}


def one(stage: str, sizes: dict[str, int]) -> None:
    """Do a stage's work once in this process and print what it took."""
    work = STAGES[stage](sizes)
    begin = time.process_time()
    work()
    seconds = time.process_time() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))


def measured(stage: str, sizes: dict[str, int]) -> dict[str, float]:
    alone = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--one", stage, json.dumps(sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **alone})
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def slope(xs: list[float], ys: list[float]) -> float:
    """Return the exponent that a doubling of the upper half of x goes with in y: 1 is linear, 2 quadratic."""
    return math.log(ys[-1] / ys[-2]) / math.log(xs[-1] / xs[-2])


def sweep() -> dict[str, dict[str, list[dict[str, float]]]]:
    """Measure every stage along every axis that it has, and print it."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for stage in STAGES:
        least = LEAST.get(stage, {"users": 1})
        for axis in least:
            points = [measured(stage, {**least, axis: least[axis] * factor}) for factor in FACTORS]
            times = [p["seconds"] for p in points]
            found.setdefault(stage, {})[axis] = [{"factor": f, **p} for f, p in zip(FACTORS, points, strict=True)]
            seconds, memory = " ".join(f"{s:8.2f}" for s in times), " ".join(f"{p['peak'] / 2**20:6.0f}" for p in points)
            power = slope([float(f) for f in FACTORS], times)
            print(f"  {stage:6} {axis:12} {seconds} s, {memory} MiB, grows as the {power:.2f}th power", flush=True)
    return found


def write(folder: Path, found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Write the numbers, and a figure of seconds by factor, each line against its own least."""
    from recmerge.evaluation.report.charts import Line
    from recmerge.evaluation.report.lines import line_chart

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    lines = [
        Line(f"{stage}: {axis}", [p["factor"] for p in ps], [p["seconds"] / ps[0]["seconds"] for p in ps])
        for stage, axes in found.items()
        for axis, ps in axes.items()
    ]
    head, _, rest = line_chart(lines, "times as much", "times as long", log_x=True).partition(">")
    (folder / "growth.svg").write_text(f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "SIZES"))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.one:
        return one(asked.one[0], json.loads(asked.one[1]))
    print("once, twice, four and eight times as much")
    found = sweep()
    if asked.out:
        write(asked.out, found)
    return None


if __name__ == "__main__":
    main()
