import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from recmerge.evaluation.report.merge import layout, merge_page

EVIL = "<script>alert(1)</script>"


def report(m: int = 2, lost: float = 0.0, label: str = "sports@v001") -> dict[str, Any]:
    """A report as `recmerge merge` makes it, of two layers and two parts."""
    off = [[0.0 if i == j else 0.4 for i in range(m)] for j in range(m)]
    cosine = [[1.0 if i == j else -0.25 for i in range(m)] for j in range(m)]
    row = {
        "rank": 4,
        "norms": [2.0] * m,
        "cosine": cosine,
        "sign_conflict": off,
        "weighted_sign_conflict": off,
        "sign_entries": 128,
        "merged_norm": 1.0,
        "energy_lost": lost,
        "relative_error": 3e-8,
    }
    modules = {f"model.layers.{i}.{part}": dict(row) for i in range(2) for part in ("mlp.up_proj", "self_attn.q_proj")}
    modules["model.layers.1.mlp.up_proj"] = {**row, "weighted_sign_conflict": [[None if i != j else 0.0 for i in range(m)] for j in range(m)]}
    modules["model.layers.0.mlp.up_proj"] = {**row, "weighted_sign_conflict": [[0.0 if i == j else 0.75 for i in range(m)] for j in range(m)]}
    adapters = [
        {"label": label if i == 0 else f"other {i}", "path": "p", "sha256": "f" * 64, "ranks": [2], "scalings": [2.0], "parameters": 9} for i in range(m)
    ]
    inference = {
        "rank": 4,
        "added_parameters": 35,
        "largest_input_parameters": 14,
        "base_flops_per_token": 200,
        "added_flops_per_token": 70,
        "latency": {"out": 6, "in": 5, "rank": 4, "tokens": 1, "base_ms": 0.5, "merged_ms": 0.75},
    }
    summary = {
        "modules": 4,
        "task_vector_norms": [4.0] * m,
        "merged_norm": 2.0,
        "cosine": cosine,
        "mean_cosine": -0.25,
        "sign_conflict": off,
        "weighted_sign_conflict": off,
        "energy_lost": lost,
    }
    adapters = [{**a, "modules": 4} for a in adapters]
    head = {"schema": 2, "method": "product", "weights": [1 / m] * m, "options": {}, "rank_out": "svd:4" if lost else "cat"}
    return {**head, "adapters": adapters, "summary": summary, "inference": inference, "modules": modules}


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_every_pair_has_its_map() -> None:
    found = headings(merge_page(report(3), "Merge x"))
    assert [h for h in found if h.startswith("Cosine of")] == ["Cosine of other 1 to sports@v001", "Cosine of other 2 to sports@v001"]
    assert "Sign conflict, weighted" in found
    assert "Size of the merged change" in found
    assert "Energy lost to truncation" not in found
    assert "Energy lost to truncation" in headings(merge_page(report(3, lost=0.25), "Merge x"))


def test_many_adapters_share_one_map_of_cosines() -> None:
    found = headings(merge_page(report(7), "Merge x"))
    assert [h for h in found if h.startswith("Cosine")] == ["Cosine to sports@v001"]


def test_one_adapter_alone_is_compared_with_nothing() -> None:
    found = headings(merge_page(report(1), "Merge x"))
    assert not [h for h in found if "osine" in h or "onflict" in h or "disagree" in h]


def test_the_worst_module_comes_first() -> None:
    text = merge_page(report(2), "Merge x")
    table = text[text.index("disagree most") :]
    assert re.findall(r'<th scope="row">(.*?)</th>', table)[0] == "model.layers.0.mlp.up_proj"
    assert "0.750" in table


def test_maps_place_modules_by_layer_and_part() -> None:
    text = merge_page(report(2), "Merge x")
    start = text.index("<svg", text.index("Sign conflict, weighted</h2>"))
    svg = ET.fromstring(text[start : text.index("</svg>", start) + 6])
    titles = [t.text for t in svg.iter("title")]
    assert "layer 0 up_proj: 0.75" in titles
    assert "layer 0 q_proj: 0.40" in titles
    assert "layer 1 up_proj: none" in titles


@pytest.mark.parametrize(
    ("modules", "layers", "parts"),
    [
        (["h.0.attn.c_proj", "h.0.mlp.c_proj"], ["layer 0"], ["attn.c_proj", "mlp.c_proj"]),  # the last word alone would be ambiguous
        (["m.10.q", "m.9.q", "lm_head"], ["layer 9", "layer 10", "no layer"], ["q", "lm_head"]),
        (["text.0.q", "vision.0.q"], ["text layer 0", "vision layer 0"], ["q"]),
        (["0.q"], ["layer 0"], ["q"]),
    ],
)
def test_layout(modules: list[str], layers: list[str], parts: list[str]) -> None:
    found, names, places = layout(modules)
    assert (found, names) == (layers, parts)
    assert len(set(places.values())) == len(modules)


def test_labels_are_shown_as_they_stand_and_nothing_is_loaded() -> None:
    text = merge_page({**report(2, label=EVIL), "warnings": [EVIL]}, EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 4
    assert not re.search(r"""(src|href)\s*=|url\((?!#)|@import|https?://""", text)
