import pytest

from recmerge.data.titles import clean_titles


def clean(title: str | None, max_chars: int = 512) -> str | None:
    return clean_titles([title], max_chars).titles[0]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Black &amp; Decker", "Black & Decker"),
        ("3&quot; Pipe", '3" Pipe'),
        ("3&amp;quot; Pipe", '3" Pipe'),
        ("L&#39;Or&eacute;al &#x263A;", "L'Oréal ☺"),
        ("AT&T R&D &c", "AT&T R&D &c"),
        ("Fish &notanentity; Co", "Fish &notanentity; Co"),
        ("  two\t\tspaces\nand&nbsp;lines  ", "two spaces and lines"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07 and \x1b[31mred", "bell and [31mred"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("\ud83d\ude00 pair", "😀 pair"),
        ("👩\u200d🚀 joined", "👩\u200d🚀 joined"),
        ("שלום עולם", "שלום עולם"),
        ("   ", None),
        ("\u200b", None),
        ("&nbsp;", None),
        (None, None),
    ],
)
def test_cleaning(raw: str | None, wanted: str | None) -> None:
    assert clean(raw) == wanted


def test_a_long_title_is_cut_to_the_limit_with_an_ellipsis() -> None:
    result = clean_titles(["a" * 10_000, "b" * 20, "c" * 19 + " d"], 20)
    assert result.titles == ["a" * 19 + "…", "b" * 20, "c" * 19 + "…"]
    assert result.n_cut == 2


def test_counts_titles_not_entities() -> None:
    assert clean_titles(["&amp; &amp;", "plain", "&lt;", None], 512).n_decoded == 2


def test_cleaning_is_idempotent() -> None:
    once = clean("  A &amp;amp; B\u0301 \u200b x")
    assert clean(once) == once
