"""A page full of hostile texts, opened in headless Chromium at the width of a desk and of a phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recmerge.evaluation.examples import BETTER, Candidate, Example, Picked, Shown
from recmerge.evaluation.report import Bar, BarChart, HeatMap, Line, Lineage, LineChart, Node, Note, Reference, Table, render_report
from recmerge.evaluation.report.users import users_section

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = [
    "<script>document.title='hacked'</script><script>alert(1)</script>",
    '"><img src=x onerror="document.title=\'hacked\'">',
    "'><svg onload=document.title='hacked'><a href='https://example.com'>x</a>",
    "</title></style></svg></table></bdi><img src=https://example.com/x.png><iframe src=//example.com>",
    "{{ 7 * 7 }} {% raw %} <!-- --> ]]> &lt;script&gt; javascript:alert(1)",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 123 \u202egnp.exe\u202c",
    "W" * 500,
    "words " * 90,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3c0\u200b\u200d\ufeff\u2060",
    "nul\x00 bell\x07 escape\x1b[31m \x85 \u2028",
]
EVERYTHING = " ".join(HOSTILE)
# Measures both frames from outside; a script in a frame could change its title, and any element wider than the frame would show.
MEASURE = """
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const d = frame.contentDocument, all = [...d.querySelectorAll("body *")];
    const out = all.filter(e => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > frame.clientWidth + 1);
    const shown = e => getComputedStyle(e).display !== "none";
    return {
      title: d.title, scripts: d.scripts.length, images: d.images.length, links: d.querySelectorAll("a, iframe, object, embed, link, base, form").length,
      handlers: all.filter(e => [...e.attributes].some(a => a.name.startsWith("on"))).length,
      loads: frame.contentWindow.performance.getEntriesByType("resource").length,
      width: d.documentElement.scrollWidth, out: out.map(e => e.tagName),
      wide: [...d.querySelectorAll("svg:not(.narrow)")].filter(shown).length, narrow: [...d.querySelectorAll("svg.narrow")].filter(shown).length,
      text: d.querySelector("li").textContent,
    };
  });
  const told = document.createElement("pre");
  told.textContent = JSON.stringify(seen);
  document.body.replaceChildren(told);
});
"""


def page() -> str:
    """A page with hostile texts in every place that takes one."""
    bars = [Bar(t, i / 10 - 0.2, i / 10 - 0.3, i / 10) for i, t in enumerate(HOSTILE)]
    nodes = [Node("a", HOSTILE[0], HOSTILE[1], 0), Node("b", HOSTILE[3], HOSTILE[6], 1)]
    example = Example(EVERYTHING, BETTER, tuple(HOSTILE), 99, tuple(Candidate(t, i == 2, (1.0, 2.5, None)) for i, t in enumerate(HOSTILE)))
    shown = Shown(Picked({EVERYTHING: BETTER}, 1, 1, 9), [example], ["a", "b", "c"], 1)
    return render_report(
        EVERYTHING,
        [
            Note(EVERYTHING, title=EVERYTHING),
            Note(EVERYTHING, warning=True),
            Table(EVERYTHING, ["", *HOSTILE], [[t, *HOSTILE] for t in HOSTILE], EVERYTHING, emphasis=(0,)),
            BarChart(EVERYTHING, bars, EVERYTHING, [Reference(EVERYTHING, 0.1)], EVERYTHING),
            LineChart(EVERYTHING, [Line(t, [1, 2], [1.0, 2.0]) for t in HOSTILE], EVERYTHING, EVERYTHING, EVERYTHING),
            HeatMap(EVERYTHING, HOSTILE, HOSTILE, [[0.5] * len(HOSTILE)] * len(HOSTILE), note=EVERYTHING),
            Lineage(EVERYTHING, nodes, [("a", "b")], [HOSTILE[0], HOSTILE[5]], EVERYTHING),
            users_section(shown, [HOSTILE[0], HOSTILE[1], HOSTILE[6]]),
        ],
        subtitle=EVERYTHING,
        facts=[(EVERYTHING, EVERYTHING)],
        footer=EVERYTHING,
    )


class Tags(HTMLParser):
    """Collects the tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for name, value in attrs if name not in {"aria-label", "content"}]


def test_nothing_but_text_names_an_address() -> None:
    text = page()
    tags = Tags()
    tags.feed(text)
    assert not tags.names & {"script", "img", "iframe", "object", "embed", "link", "base", "a", "form", "video", "audio", "use", "image"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in {"src", "href", "xlink:href", "srcset", "action", "data"}}
    assert not [value for value in tags.values if re.search(r"https?:|//|javascript:|data:", value)]
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert style
    assert not re.search(r"https?:|//|url\(|@import", style[1])
    assert "default-src 'none'" in text
    assert text.count("\u200d") == text.count("👨\u200d👩\u200d👧") * 2  # inside a family alone
    for invisible in "\u200b\u202e\ufeff\u2028\x00\x07\x1b":
        assert invisible not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_hostile_texts_stay_texts_and_the_phone_needs_no_sideways_scrolling(tmp_path: Path) -> None:
    bare = page().replace('http-equiv="Content-Security-Policy"', "")  # the escapes alone must hold
    frames = "".join(f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(bare)}"></iframe>' for width in (1100, 390))
    file = tmp_path / "harness.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><script>{MEASURE}</script><body>{frames}', encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    dumped = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=600, check=True).stdout
    found = re.search(r"<pre>(.*?)</pre>", dumped, flags=re.DOTALL)
    assert found, dumped[:500]
    desk, phone = json.loads(html.unescape(found[1]))
    for frame in (desk, phone):
        assert "<script>document.title='hacked'</script>" in frame["title"]  # as it was written
        assert [frame[key] for key in ("scripts", "images", "links", "handlers", "loads")] == [0, 0, 0, 0, 0]
        assert frame["out"] == []
        assert frame["text"] == HOSTILE[0]
    assert (desk["width"], phone["width"]) == (1100, 390)
    assert (desk["wide"], desk["narrow"]) == (4, 0)
    assert (phone["wide"], phone["narrow"]) == (2, 2)  # the heat map and the lineage scroll in their boxes
