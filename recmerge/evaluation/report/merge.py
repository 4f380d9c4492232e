"""The page of a merge, from its `merge_report.json`: what each adapter changes, where they disagree, and what was lost."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recmerge.evaluation.report.page import HeatMap, Note, Section, Table, render_report

_LAYER = re.compile(r"(?:(?P<tower>.*?)\.)?(?P<number>\d+)\.(?P<part>.+)")
_MOST_MAPS = 4  # cosine maps of single adapters; more are shown as one of their means
_WORST = 12  # modules in the table of conflicts
Row = Mapping[str, Any]

_HOW = (
    "A task vector is what one adapter changes in the weights, exactly: scaling times B times A. Task vectors of cosine near 1 say the same and may be "
    "averaged; near 0 they share nothing, so that a mean of M of them keeps 1/M of each; below 0, and where many entries have opposite signs, they undo "
    "each other. Random task vectors have cosine 0 and half of their signs opposed."
)
_PLAIN = "share of entries of opposite sign, among those that are zero in neither"
_WEIGHTED = "each entry counted by the product of its magnitudes"


def merge_page(report: Mapping[str, Any], title: str) -> str:
    """Return a merge as one HTML page.

    Args:
        report: What `merge_report.json` holds.
        title: Its heading.

    Returns:
        A page that loads nothing.
    """
    rows: Mapping[str, Row] = report["modules"]
    s, inference = report["summary"], report["inference"]
    sections: list[Section] = [*_warnings(report), Note(_HOW, title="How to read this"), _adapters(report), *_pairs(report), *_maps(report), *_worst(report)]
    sections += [_cost(inference), *_modules(rows)]
    facts = [
        ("method", report["method"]),
        ("rank-out", report["rank_out"]),
        ("modules", f"{s['modules']:,}"),
        ("added parameters", f"{inference['added_parameters']:,}"),
        ("energy lost", f"{s['energy_lost']:.2%}"),
        ("mean cosine", _number(s["mean_cosine"], 3)),
    ]
    options = "".join(f" · {name} {value}" for name, value in report["options"].items())
    return render_report(title, sections, subtitle=", ".join(a["label"] for a in report["adapters"]) + options, facts=facts)


def _warnings(report: Mapping[str, Any]) -> list[Section]:
    return [Note(text, warning=True) for text in report.get("warnings", [])]


def _adapters(report: Mapping[str, Any]) -> Table:
    norms = report["summary"]["task_vector_norms"]
    rows = []
    for adapter, weight, norm in zip(report["adapters"], report["weights"], norms, strict=True):
        ranks, scalings = (", ".join(f"{v:g}" for v in adapter[key]) for key in ("ranks", "scalings"))
        rows.append([adapter["label"], f"{weight:g}", ranks, scalings, adapter["modules"], f"{adapter['parameters']:,}", f"{norm:.4g}", adapter["sha256"][:12]])
    merged = f"{report['summary']['merged_norm']:.4g}"
    rows.append(["merged", "", report["inference"]["rank"] or "none", "1", len(report["modules"]), f"{report['inference']['added_parameters']:,}", merged, ""])
    note = "Norm: Frobenius, of the whole task vector. A merged norm far below the largest one says that the adapters undo or thin out each other."
    columns = ["adapter", "weight", "rank", "scaling", "modules", "parameters", "norm of its change", "sha256"]
    return Table("What went in, and what came out", columns, rows, note, emphasis=[len(rows) - 1])


def _pairs(report: Mapping[str, Any]) -> list[Section]:
    s, labels = report["summary"], [a["label"] for a in report["adapters"]]
    pairs = [(i, j) for j in range(len(labels)) for i in range(j)]
    if not pairs:
        return []
    keys = ("cosine", "sign_conflict", "weighted_sign_conflict")
    rows = [[f"{labels[i]} and {labels[j]}", *(_number(s[key][i][j], 4) for key in keys)] for i, j in pairs]
    note = f"Cosine: of whole task vectors. Sign conflict: {_PLAIN}; weighted: the same, {_WEIGHTED}; means over modules. {_sampled(report)}"
    return [Table("Every two adapters", ["pair", "cosine", "sign conflict", "weighted sign conflict"], rows, note)]


def _sampled(report: Mapping[str, Any]) -> str:
    sizes = sorted({row["sign_entries"] for row in report["modules"].values()})
    shown = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"Signs were compared in {shown} entries per module: in large ones on a fixed grid of evenly spaced rows and columns."


def _maps(report: Mapping[str, Any]) -> list[Section]:
    rows: Mapping[str, Row] = report["modules"]
    labels = [a["label"] for a in report["adapters"]]
    m = len(labels)
    others = range(1, m)
    maps: list[Section] = []
    if 1 < m <= _MOST_MAPS + 1:
        for j in others:
            note = "1: the same direction; 0: nothing in common; below 0: they undo each other. Grey: one of the two does not change this module."
            maps.append(_map(f"Cosine of {labels[j]} to {labels[0]}", rows, lambda r, j=j: r["cosine"][0][j], (-1.0, 1.0), note))  # type: ignore[misc]
    elif m > 1:
        note = f"Mean over the other {m - 1} adapters. 1: the same direction; 0: nothing in common."
        maps.append(_map(f"Cosine to {labels[0]}", rows, lambda r: _mean([r["cosine"][0][j] for j in others]), (-1.0, 1.0), note))
    if m > 1:
        pairs = [(i, j) for j in range(m) for i in range(j)]
        note = f"{_PLAIN.capitalize()}, {_WEIGHTED}; mean over all pairs. Chance is 0.5. {_sampled(report)}"
        maps.append(_map("Sign conflict, weighted", rows, lambda r: _mean([r["weighted_sign_conflict"][i][j] for i, j in pairs]), (0.0, 1.0), note))
    if any(row["energy_lost"] > 0 for row in rows.values()):
        note = f"Share of the merged change's squared norm that {report['rank_out']} dropped."
        maps.append(_map("Energy lost to truncation", rows, lambda r: r["energy_lost"], (0.0, 1.0), note))
    note = "The merged change's norm over that of the largest task vector in the same module. With equal weights 1/M and nothing in common: 1/sqrt(M) or less."
    return [*maps, _map("Size of the merged change", rows, _relative_size, (0.0, 1.0), note)]


def _relative_size(row: Row) -> float | None:
    largest = max(row["norms"])
    return row["merged_norm"] / largest if largest > 0 else None


def _map(title: str, rows: Mapping[str, Row], value: Callable[[Row], float | None], span: tuple[float, float], note: str) -> HeatMap:
    layers, parts, places = layout([*rows])
    values: list[list[float | None]] = [[None] * len(parts) for _ in layers]
    for module, row in rows.items():
        i, j = places[module]
        values[i][j] = value(row)
    return HeatMap(title, layers, parts, values, *span, note=note)


def layout(modules: Sequence[str]) -> tuple[list[str], list[str], dict[str, tuple[int, int]]]:
    """Arrange modules as layers by parts.

    Args:
        modules: Their names, e.g. "model.layers.3.self_attn.q_proj".

    Returns:
        The layers' names, by number; the parts' names, in the order in which they first come; and module -> (layer, part). A module
        without a number has a row of its own kind, "no layer".
    """
    found = {m: _LAYER.fullmatch(m) for m in modules}
    towers = {match["tower"] for match in found.values() if match}
    keys: dict[str, tuple[tuple[str, int], str]] = {}
    for module, match in found.items():
        if match is None:
            keys[module] = ("", -1), module
        else:
            keys[module] = (match["tower"] or "" if len(towers) > 1 else "", int(match["number"])), match["part"]
    layers = sorted({layer for layer, _ in keys.values()}, key=lambda k: (k[1] < 0, *k))
    parts = list(dict.fromkeys(part for _, part in keys.values()))
    short = {p: p.rpartition(".")[2] for p in parts}
    names = [short[p] if list(short.values()).count(short[p]) == 1 else p for p in parts]
    places = {m: (layers.index(layer), parts.index(part)) for m, (layer, part) in keys.items()}
    return ["no layer" if n < 0 else f"{tower} layer {n}".strip() for tower, n in layers], names, places


def _worst(report: Mapping[str, Any]) -> list[Section]:
    m = len(report["adapters"])
    pairs = [(i, j) for j in range(m) for i in range(j)]
    scored = []
    for module, row in report["modules"].items():
        known = [(row["weighted_sign_conflict"][i][j], i, j) for i, j in pairs if row["weighted_sign_conflict"][i][j] is not None]
        if known:
            scored.append((*max(known), module, row))
    if not scored:
        return []
    scored.sort(key=lambda entry: (-entry[0], entry[3]))
    labels = [a["label"] for a in report["adapters"]]
    rows = [
        [module, f"{labels[i]} and {labels[j]}", f"{conflict:.3f}", _number(row["sign_conflict"][i][j], 3), _number(row["cosine"][i][j], 3)]
        for conflict, i, j, module, row in scored[:_WORST]
    ]
    columns = ["module", "pair", "weighted sign conflict", "sign conflict", "cosine"]
    return [Table("Where two adapters disagree most", columns, rows, "Of each module, the pair with the highest weighted sign conflict.")]


def _cost(inference: Mapping[str, Any]) -> Table:
    base, added, time = inference["base_flops_per_token"], inference["added_flops_per_token"], inference["latency"]
    rows = [
        ["parameters added", f"{inference['added_parameters']:,}"],
        ["of the largest adapter that went in", f"{inference['largest_input_parameters']:,}"],
        ["operations for one token in the adapted layers, without", f"{base:,}"],
        ["operations added", f"{added:,} ({added / base:.2%})"],
        [f"one {time['out']} x {time['in']} layer, without", f"{time['base_ms']:.4f} ms"],
        [f"with rank {time['rank']} beside it" if time["rank"] else "folded", f"{time['merged_ms']:.4f} ms"],
    ]
    note = "Times: one token, float32, numpy, median of nine on this machine: for comparing rank-outs. Folded changes cost nothing."
    return Table("Cost at inference", ["", ""], rows, note)


def _modules(rows: Mapping[str, Row]) -> list[Section]:
    shown = [
        [module, row["rank"], ", ".join(f"{n:.3g}" for n in row["norms"]), f"{row['merged_norm']:.3g}", f"{row['energy_lost']:.2%}", _error(row)]
        for module, row in rows.items()
    ]
    note = (
        "Norms: Frobenius, of each adapter's change and of the merged one. Error: of the stored change, relative to the exact one; only a written merge has it."
    )
    return [Table("Every module", ["module", "rank", "norms", "merged norm", "energy lost", "error"], shown, note)]


def _error(row: Row) -> str:
    return f"{row['relative_error']:.1e}" if row.get("relative_error") is not None else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, decimals: int) -> str:
    return "none" if value is None else f"{value:.{decimals}f}"
