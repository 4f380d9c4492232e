from math import log, sqrt
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError
from recmerge.rankers.tfidf import TfidfRanker, TfidfSettings, words

TITLES = {"mat": "Yoga Mat", "bag": "Yoga bag, YOGA strap", "ball": "Ball", "lamp": "Ünïcode Lämp", "torch": "lämp", "nothing": "!!!"}
# Of 6 titles, `yoga` and `lämp` stand in two each and every other word in one.
TWICE, ONCE = log(7 / 3) + 1, log(7 / 2) + 1
MAT, BAG, LAMP = sqrt(TWICE**2 + ONCE**2), sqrt(TWICE**2 + 2 * ONCE**2), sqrt(TWICE**2 + ONCE**2)  # lengths before they are made 1


def domain(name: str = "sports", titles: dict[str, str] = TITLES) -> Domain:
    """A catalogue that nobody bought anything of."""
    empty = pl.DataFrame()
    return Domain(name, "clean", pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}), empty, empty, empty, empty)


def scores(history: tuple[str, ...], candidates: tuple[str, ...], of: TfidfRanker | None = None, name: str = "sports") -> list[float]:
    ranker = of or TfidfRanker()
    if of is None:
        ranker.fit(domain())
    return ranker.score([Example(name, "u", history, candidates[0], candidates)])[0].tolist()


def test_one_purchase_by_hand() -> None:
    # `yoga` counts once in the bag's title, though it is there twice, in two cases
    assert scores(("mat",), ("mat", "bag", "ball", "nothing")) == pytest.approx([1, TWICE**2 / (MAT * BAG), 0, 0])


def test_words_of_every_script_are_lower_cased() -> None:
    assert scores(("lamp",), ("torch", "mat")) == pytest.approx([TWICE / LAMP, 0])


def test_a_later_purchase_counts_more_by_hand() -> None:
    length = sqrt(0.9**2 + 1)  # the two titles share no word
    assert scores(("mat", "ball"), ("mat", "ball")) == pytest.approx([0.9 / length, 1 / length])
    assert scores(("ball", "mat"), ("mat", "ball")) == pytest.approx([1 / length, 0.9 / length])


def test_the_nearest_title_and_the_last_purchases_by_hand() -> None:
    nearest, last = TfidfRanker(TfidfSettings(pooling="max")), TfidfRanker(TfidfSettings(last_n=1))
    both = TfidfRanker(TfidfSettings(pooling="max", last_n=2))
    for ranker in (nearest, last, both):
        ranker.fit(domain())
    alike = TWICE**2 / (MAT * BAG)
    assert scores(("mat", "ball", "lamp"), ("mat", "bag", "ball", "torch"), nearest) == pytest.approx([1, alike, 1, TWICE / LAMP])
    assert scores(("mat", "ball", "lamp"), ("mat", "bag", "ball", "torch"), last) == pytest.approx([0, 0, 0, TWICE / LAMP])
    assert scores(("mat", "ball", "lamp"), ("mat", "bag", "ball", "torch"), both) == pytest.approx([0, 0, 1, TWICE / LAMP])
    assert scores((), ("mat", "bag"), nearest) == [0, 0]


def test_a_purchase_outside_the_catalogue_is_passed_over() -> None:
    assert scores(("mat", "gone", "ball", "gone"), ("mat", "ball")) == scores(("mat", "ball"), ("mat", "ball"))


@pytest.mark.parametrize("history", [(), ("gone",), ("nothing",)])
def test_who_bought_nothing_with_words_gets_zeros(history: tuple[str, ...]) -> None:
    assert scores(history, ("mat", "nothing", "gone")) == [0, 0, 0]


def test_what_is_outside_the_catalogue_scores_zero() -> None:
    assert scores(("mat",), ("gone", "mat")) == pytest.approx([0, 1])


def test_equal_titles_tie_exactly() -> None:
    ranker = TfidfRanker()
    ranker.fit(domain(titles={"a": "red blue green", "b": "green RED blue", "c": "blue"}))
    first, second, third = scores(("a", "c", "b", "c"), ("a", "b", "c"), ranker)
    assert first == second != third


def test_domains_are_weighed_apart() -> None:
    ranker, alone = TfidfRanker(), TfidfRanker()
    ranker.fit(TrainingSet("beauty_sports", {"sports": domain(), "beauty": domain("beauty", {"mat": "Bath Mat", "bag": "Bath Bag"})}, pl.DataFrame()))
    alone.fit(domain())
    assert scores(("mat",), ("mat", "bag"), ranker) == scores(("mat",), ("mat", "bag"), alone)
    both, one = 1.0, log(3 / 2) + 1  # `bath` stands in both titles of beauty
    assert scores(("mat",), ("mat", "bag"), ranker, "beauty") == pytest.approx([1, both / (both + one**2)])
    assert scores(("mat",), ("mat", "bag"), ranker, "toys") == [0, 0]


def test_a_catalogue_without_items_scores_zero() -> None:
    ranker = TfidfRanker()
    ranker.fit(Domain("sports", "clean", domain().items.clear(), pl.DataFrame(), pl.DataFrame(), pl.DataFrame(), pl.DataFrame()))
    assert scores(("mat",), ("mat", "bag"), ranker) == [0, 0]


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    ranker = TfidfRanker()
    ranker.fit(domain())
    ranker.save(tmp_path)
    card = tmp_path / "ranker.json"
    card.write_text(card.read_text().replace('"ball",', ""))
    with pytest.raises(ArtifactError, match="do not fit together"):
        TfidfRanker().load(tmp_path)


def test_titles_without_blanks_are_told_apart() -> None:
    titles = {"red": "跑步鞋红色耐克", "blue": "跑步鞋蓝色阿迪", "tea": "绿茶100g", "run": "รองเท้าวิ่ง"}
    ranker = TfidfRanker()
    ranker.fit(domain(titles=titles))
    (scores,) = ranker.score([Example("sports", "u", ("red",), "blue", ("red", "blue", "tea", "run"))])
    assert scores[0] > scores[1] > scores[2] == scores[3] == 0
    assert words("绿茶100g") == {"绿茶", "100g"}
    assert words("茶") == {"茶"}
    assert words("Ünïcode Lämp, lämp") == {"ünïcode", "lämp"}
