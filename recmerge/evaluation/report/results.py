"""The page of one evaluation, from its `metrics.json` document."""

from collections.abc import Mapping, Sequence
from typing import Any

from recmerge.evaluation.doubts import doubts
from recmerge.evaluation.examples import Shown
from recmerge.evaluation.report.calibration import calibration_sections
from recmerge.evaluation.report.charts import Bar, Line, Reference
from recmerge.evaluation.report.fusion import fusion_sections
from recmerge.evaluation.report.losses import Losses, loss_sections
from recmerge.evaluation.report.page import BarChart, Lineage, LineChart, Note, Section, Table, render_report
from recmerge.evaluation.report.users import users_section

SLICE_NAMES = {
    "all": "all users",
    "tied_last_two": "target shares its time with the event beside it",
    "history_1-4": "history of 1 to 4",
    "history_5-9": "history of 5 to 9",
    "history_10+": "history of 10 and more",
    "target_head": "target among the most bought fifth",
    "target_middle": "target among the rest of the upper half",
    "target_tail": "target among the less bought half",
    "target_unseen": "target never bought in training",
}
_ASKED = {
    "stored": "Whom a target is ranked among is stored with the data set, the same for every run.",
    "popular": "The negatives were drawn by how often an item was bought in training, so that being popular does not give the target away.",
    "similar": "The negatives are those items whose titles are most like the target's (TF-IDF), the hardest to tell from it by name.",
    "all": "The candidates are the whole catalogue but for the user's other items.",
}
_MAX_CURVES = 8
_SIDE_BY_SIDE = 4  # runs


def results_page(
    metrics: dict[str, Any], curves: Mapping[str, Sequence[float]], lineage: Lineage | None, shown: Shown | None = None, losses: Sequence[Losses] = ()
) -> str:
    """Return the report of an evaluation.

    Args:
        metrics: The document of `metrics.json`.
        curves: Hit rate at cut-offs 1, 2, ... by run.
        lineage: From what the runs came.
        shown: Some users; None: none are shown.
        losses: Of the adapters behind the runs.

    Returns:
        One HTML page.
    """
    blocks, names = metrics["runs"], list(metrics["metrics"])
    head = names[0]
    first = metrics["run"]
    spread = (
        f"Whiskers and brackets: 95 % percentile bootstrap over users, {metrics['bootstrap']['n_samples']:,} resamples, seed {metrics['bootstrap']['seed']}."
    )
    sections: list[Section] = [_protocol(metrics), *_warnings(metrics)]
    sections.append(_bars(blocks, head, spread))
    sections.append(_table(blocks, names))
    if metrics["comparisons"]:
        sections += [*_comparisons(metrics, head), *_transfer(metrics)]
    if "fusion" in metrics:
        sections += fusion_sections(metrics["fusion"])
    if "calibration" in metrics:
        sections += calibration_sections(metrics["calibration"], {key: _label(blocks, key) for key in metrics["calibration"]})
    sections += [*_slices(blocks, head, spread), *_positions(blocks)]
    if curves:
        sections.append(_curves(metrics, curves))
    sections.append(_quality(blocks))
    if shown is not None:
        sections.append(users_section(shown, [_label(blocks, key) for key in shown.runs]))
    sections += loss_sections(losses)
    if lineage is not None:
        sections.append(lineage)
    value = metrics["metrics"][head]
    facts = [
        (head.upper(), f"{value['value']:.4f}"),
        ("95 % interval", f"{value['ci95'][0]:.4f} to {value['ci95'][1]:.4f}"),
        ("users", f"{metrics['n_users']:,}"),
        ("candidates each", _size(metrics)),
    ]
    against = f" against {blocks[metrics['baseline']]['run']['label']}" if metrics["baseline"] else ""
    asked = ", ".join(first["domains"]) + (f", {first['split']} split" if first["split"] else "")
    return render_report(
        f"{first['label']}{against}",
        sections,
        subtitle=f"{asked or 'published files'} · run {first['name']} {first['version']}".rstrip(),
        facts=facts,
        footer="The figures stand in metrics.json, every user's result in per_user.parquet.",
    )


def _size(block: dict[str, Any]) -> str:
    n = block["candidates"]["n"]
    return "unknown" if n is None else f"{n:,}"


def _label(blocks: dict[str, Any], key: str) -> str:
    """Return a run's label, with its unique name behind it where another run has the same label."""
    label = blocks[key]["run"]["label"]
    return label if sum(b["run"]["label"] == label for b in blocks.values()) == 1 else f"{label} ({key})"


def _protocol(metrics: dict[str, Any]) -> Note:
    sha, kind = metrics["candidates"]["sha256"], metrics["candidates"].get("kind", "stored")
    text = (
        f"Each of {metrics['n_users']:,} users has one target among {_size(metrics)} candidates. A target that was not ranked is a miss and stays in the "
        "denominator. Where candidates share the target's score, every metric is its expected value over all orders of the tie, so the order of "
        f"the candidates decides nothing. {_ASKED[kind]} Figures of other candidates cannot be compared with these."
    )
    return Note(text + (f" Candidates sha256 {sha[:16]}." if sha else ""), title="What was measured")


def _warnings(metrics: dict[str, Any]) -> list[Note]:
    return [Note(f"{text[:1].upper()}{text[1:]}.", warning=True) for text in doubts(metrics)]


def _bars(blocks: dict[str, Any], metric: str, spread: str) -> BarChart:
    bars = []
    for i, (key, block) in enumerate(blocks.items()):
        figure = block["metrics"][metric]
        bars.append(Bar(_label(blocks, key), figure["value"], figure["ci95"][0], figure["ci95"][1], emphasis=i == 0))
    chances = {round(block["chance"][metric], 6) for block in blocks.values() if block["chance"]}
    references = [Reference("random order", value) for value in sorted(chances)]
    users = sorted({block["n_users"] for block in blocks.values()})
    count = f"{users[0]:,}" if len(users) == 1 else f"{users[0]:,} to {users[-1]:,}"
    return BarChart(metric.upper(), bars, f"{metric.upper()} (0 to 1, mean over users)", references, f"{spread} {count} users per bar.")


def _table(blocks: dict[str, Any], names: Sequence[str]) -> Table:
    note = (
        "HR is the hit rate; HR@1 is NDCG@1. MRR without a cut-off is over the whole list. One relevant item per user: NDCG@k is 1/log2(rank+1) up to rank k."
    )
    chance = next(iter(blocks.values()))["chance"]
    if len(blocks) <= _SIDE_BY_SIDE:  # all intervals fit on a page
        lines = [[name.upper(), *(_with_interval(b["metrics"][name]) for b in blocks.values()), *([f"{chance[name]:.4f}"] if chance else [])] for name in names]
        users = ["users", *(f"{block['n_users']:,}" for block in blocks.values()), *([""] if chance else [])]
        heads = ["metric", *(_label(blocks, key) for key in blocks), *(["random order (expected)"] if chance else [])]
        return Table("All metrics", heads, [*lines, users], note, emphasis=(0,))
    rows = []
    for key, block in blocks.items():
        cells = [_with_interval(block["metrics"][name]) if i == 0 else f"{block['metrics'][name]['value']:.4f}" for i, name in enumerate(names)]
        rows.append([_label(blocks, key), f"{block['n_users']:,}", *cells])
    if chance:
        rows.append(["random order (expected)", "", *(f"{chance[name]:.4f}" for name in names)])
    return Table("All metrics", ["run", "users", *(n.upper() for n in names)], rows, note, emphasis=(0,))


def _with_interval(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.4f} [{figure['ci95'][0]:.4f}, {figure['ci95'][1]:.4f}]"


def _comparisons(metrics: dict[str, Any], head: str) -> list[Section]:
    blocks, rows = metrics["runs"], metrics["comparisons"]
    baseline = _label(blocks, metrics["baseline"])
    shown = [row for row in rows if row["metric"] == head]
    bars = [Bar(_label(blocks, row["run"]), row["difference"], row["ci95"][0], row["ci95"][1], emphasis=i == 0) for i, row in enumerate(shown)]
    n = shown[0]["n_users"]
    note = f"Paired bootstrap over the same {n:,} users and candidates; whiskers: 95 % interval. A whisker that crosses zero: no difference shown."
    cells = []
    for row in rows:
        signed = f"{row['difference']:+.4f} [{row['ci95'][0]:+.4f}, {row['ci95'][1]:+.4f}]"
        detectable = "" if row["detectable"] is None else f"{row['detectable']:.4f}"
        tested = [f"{row[key]:.4f}" for key in ("p", "p_holm", "p_permutation", "p_permutation_holm")]
        cells.append([_label(blocks, row["run"]), row["metric"].upper(), signed, *tested, detectable])
    explained = (
        "p is two-sided, of the paired bootstrap and of the permutation test, which draws the sign of each user's difference anew; Holm adjusts it for "
        "the number of runs compared on a metric. Detectable: the smallest true difference that this many users would show with 80 % power at the 5 % "
        "level; a smaller one can be real and stay unseen. Of the mean rank, less is better."
    )
    return [
        BarChart(f"{head.upper()}: difference to {baseline}", bars, f"{head.upper()}, run - baseline", note=note, decimals=4, signed=True),
        Table(f"Differences to {baseline}", ["run", "metric", "difference", "p", "p (Holm)", "p, permuted", "(Holm)", "detectable"], cells, explained),
    ]


def _transfer(metrics: dict[str, Any]) -> list[Section]:
    """Say where runs are worse than the baseline, slice by slice."""
    blocks, found = metrics["runs"], metrics["transfer"]
    baseline = _label(blocks, metrics["baseline"])
    alarms = {(row["run"], row["slice"]) for row in found["alarms"]}
    several = len({row["run"] for row in found["rows"]}) > 1
    notes: list[Section] = []
    for run in dict.fromkeys(row["run"] for row in found["alarms"]):
        places = [SLICE_NAMES.get(row["slice"], row["slice"]) for row in found["alarms"] if row["run"] == run]
        text = f"{_label(blocks, run)} is worse than {baseline} on {found['metric'].upper()} by more than chance explains: {'; '.join(places)}."
        notes.append(Note(f"{text} Where that is the target's own adapter, this is negative transfer.", warning=True))
    rows = [
        [
            (f"{_label(blocks, row['run'])}: " if several else "") + SLICE_NAMES.get(row["slice"], row["slice"]),
            f"{row['n_users']:,}",
            f"{row['difference']:+.4f} [{row['ci95'][0]:+.4f}, {row['ci95'][1]:+.4f}]",
            f"{row['p_holm']:.4f}",
            "worse" if (row["run"], row["slice"]) in alarms else "",
        ]
        for row in found["rows"]
    ]
    note = (
        "p is the larger of the paired bootstrap's and the permutation test's within each slice; Holm adjusts it for the number of slices, but not that of all "
        "users. Marked: worse, and adjusted p below .05."
    )
    title = f"{found['metric'].upper()} against {baseline} by slice of users"
    return [*notes, Table(title, ["run and slice" if several else "slice", "users", "difference", "p (Holm)", ""], rows, note)]


def _slices(blocks: dict[str, Any], metric: str, spread: str) -> list[Section]:
    present = [name for name in SLICE_NAMES if any(name in block["slices"] for block in blocks.values())]
    if present == ["all"]:
        return []
    rows = []
    for name in present:
        holders = [block["slices"].get(name) for block in blocks.values()]
        counts = sorted({slice_["n_users"] for slice_ in holders if slice_})
        users = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        rows.append([SLICE_NAMES[name], users, *(_with_interval(s["metrics"][metric]) if s else "" for s in holders)])
    note = (
        f"{spread} A user is in several slices. Where a target shares its time with the event beside it, which of the two is the target is a convention. "
        "An interval without width means that all users of a slice have one value: it says nothing of other users."
    )
    return [Table(f"{metric.upper()} by slice of users", ["slice", "users", *(_label(blocks, key) for key in blocks)], rows, note, emphasis=(0,))]


def _positions(blocks: dict[str, Any]) -> list[Section]:
    found = {key: block["position"] for key, block in blocks.items() if block.get("position")}
    if not found:
        return []
    rows = []
    for key, position in found.items():
        shares = [part["chosen"] for part in position["parts"]]
        rows.append([_label(blocks, key), _with_interval(position["first_choice"]), *(f"{100 * share:.1f} %" for share in shares)])
    note = (
        "Where a run's first choices stood in the lists as they were asked; 0: the first of a list, 1: the last. The stored lists are shuffled, so a run "
        "that is blind to their order stands at .5 but for chance, and has a fifth of its choices in each fifth of the list."
    )
    head = ["run", "mean place of the first choice", "first fifth", "second", "third", "fourth", "last fifth"]
    return [Table("Does the place in the list decide?", head, rows, note)]


def _curves(metrics: dict[str, Any], curves: Mapping[str, Sequence[float]]) -> LineChart:
    blocks = metrics["runs"]
    keys = list(curves)[:_MAX_CURVES]
    lines = [Line(_label(blocks, key), range(1, len(curves[key]) + 1), curves[key]) for key in keys]
    n = metrics["candidates"]["n"]
    length = max(len(curves[key]) for key in keys)
    if n is not None:
        last = min(n, length)
        lines.append(Line("random order", [1, last], [1 / n, last / n], dashed=True))
    left_out = f" The first {_MAX_CURVES} of {len(curves)} runs." if len(curves) > _MAX_CURVES else ""
    shown = f"The first {length} places" if n is not None and length < n else "The whole distribution"
    note = f"{shown} of the target's rank: the share of users whose target is among the first k.{left_out}"
    return LineChart("Hit rate by length of the list", lines, "k (length of the list)", "HR@k (share of users)", note)


def _quality(blocks: dict[str, Any]) -> Table:
    columns = ["run", "users", "malformed", "off the list", "target not ranked", "target's score tied"]
    rows = [
        [_label(blocks, key), *(_count(block[name], block["n_users"]) for name in ("n_users", "malformed", "off_list", "unranked", "ties"))]
        for key, block in blocks.items()
    ]
    note = "Malformed: no readable output. Off the list: it names something that is no candidate. These users stay in every mean."
    return Table("Outputs", columns, rows, note)


def _count(n: int, of: int) -> str:
    return f"{n:,}" if n in (0, of) else f"{n:,} ({n / of:.1%})"
