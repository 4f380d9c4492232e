import re

from recmerge.evaluation.report import Bar, BarChart, Line, Lineage, LineChart, Node, Note, Table, render_report

EVIL = "<script>alert(1)</script>[red]\x1b[31m & \ud800"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;[red]\\x1b[31m &amp; \\xd800"


def page() -> str:
    return render_report(
        EVIL,
        [
            Note(EVIL, title=EVIL),
            Note("careful", warning=True),
            Table(EVIL, [EVIL], [[EVIL], [0.5], [None]], note=EVIL, emphasis=(1,)),
            BarChart(EVIL, [Bar(EVIL, 0.5)], EVIL, note=EVIL),
            LineChart(EVIL, [Line(EVIL, [1, 2], [1.0, 2.0])], EVIL, EVIL),
            Lineage(EVIL, [Node("a", EVIL, EVIL, 0)], [], [EVIL]),
        ],
        subtitle=EVIL,
        facts=[(EVIL, EVIL)],
        footer=EVIL,
    )


def test_texts_are_shown_as_they_stand() -> None:
    text = page()
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count(SHOWN) > 10
    text.encode("utf-8")  # lone surrogates would fail


def test_nothing_is_loaded() -> None:
    text = page()
    assert not re.search(r"""(src|href)\s*=|url\((?!#)|@import|https?://""", text)


def test_sections_come_in_order() -> None:
    text = render_report("t", [Note("second", title="first"), Table("third", ["a", "b"], [["x", 1]])])
    places = [text.index(word) for word in ("first</h2>", "<p>second", "third</h2>", "<td>1</td>")]
    assert places == sorted(places)


def test_equal_reports_are_equal_bytes() -> None:
    assert page() == page()
