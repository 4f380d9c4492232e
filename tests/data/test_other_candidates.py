"""Popular, similar and all candidates, and lists in another order, on catalogues small enough to count by hand."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.other_candidates import (
    catalogue_of,
    free_items,
    in_other_order,
    popular_candidates,
    similar_candidates,
    whole_catalogue_sha256,
)
from recmerge.data.splitting import Cuts
from recmerge.errors import DataError

EVENT_TYPES = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "position": pl.Int32, "split": pl.String}


def make_domain(titles: dict[str, str], bought: dict[str, str], crowd: dict[str, int] | None = None, cuts: Cuts | None = None) -> Domain:
    """Users buy one-letter items in turn, the last as test and the last but one as validation; a crowd has training events alone."""
    rows = []
    for user, own in bought.items():
        splits = ["train"] * (len(own) - 2) + ["valid", "test"]
        rows += [(user, item, place, place, split) for place, (item, split) in enumerate(zip(own, splits, strict=True))]
    rows += [(f"crowd-{item}{n}", item, 0, 0, "train") for item, count in (crowd or {}).items() for n in range(count)]
    events = pl.DataFrame(rows, schema=EVENT_TYPES, orient="row").sort("user_id", "position")
    items = pl.DataFrame({"item_id": sorted(titles), "title": [titles[i] for i in sorted(titles)], "brand": "", "category": ""})
    empty = pl.DataFrame()
    return Domain("toy", "clean", items, events, empty, empty, empty, cuts)


def ask(domain: Domain, n: int, split: str = "test", users: Sequence[str] | None = None) -> list[Example]:
    """Questions of n candidates, which stand for those that were stored."""
    targets = dict(domain.events.filter(pl.col("split") == split).select("user_id", "item_id").iter_rows())
    return [Example("toy", user, (), targets[user], ("stored",) * n) for user in users or sorted(targets)]


def letters(text: str) -> dict[str, str]:
    return {letter: f"title {letter}" for letter in text}


def negatives(found: Sequence[Example]) -> list[list[str]]:
    for example in found:
        assert example.candidates.count(example.target) == 1
        assert len(set(example.candidates)) == len(example.candidates)
    return [[c for c in e.candidates if c != e.target] for e in found]


def test_popular_negatives_are_drawn_by_training_events() -> None:
    users = {f"u{n:04d}": "xyz" for n in range(4000)}
    crowd = {"a": 6, "b": 3, "c": 1}
    domain = make_domain(letters("abcxyz"), users, crowd)
    drawn = Counter(tuple(n) for n in negatives(popular_candidates(domain, "test", ask(domain, 2))))
    for item, count in crowd.items():  # one of three
        share = count / 10
        assert abs(drawn[(item,)] - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))
    pairs = Counter(frozenset(n) for n in negatives(popular_candidates(domain, "test", ask(domain, 3))))
    for left, right in ("ab", "ac", "bc"):  # two of three, one after the other: P(ab) = .6 * 3/4 + .3 * 6/7
        p, q = crowd[left] / 10, crowd[right] / 10
        share = p * q / (1 - p) + q * p / (1 - q)
        assert abs(pairs[frozenset(left + right)] - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


@pytest.mark.parametrize("n_rare", [3, 200])  # drawn within the first draws, and only by going through the whole catalogue
def test_popular_negatives_keep_their_shares_however_far_the_draw_must_go(n_rare: int) -> None:
    """One item is bought 2,000 times, of the others all but two are its user's own: the two come in the ratio of their events, 3 to 1."""
    names = [f"i{n:03d}" for n in range(n_rare)]
    users = {f"u{n:03d}": "xyz" for n in range(600)}
    domain = make_domain(letters("abcxyz") | {name: f"title {name}" for name in names}, users, {"a": 2000, "b": 3, "c": 1})
    found = negatives(popular_candidates(domain, "test", ask(domain, 3)))
    assert all("a" in listed for listed in found)  # 1 in 500 of the weight is not a's
    assert {item for listed in found for item in listed} == set("abc")  # what nobody bought comes last
    n_b = sum("b" in listed for listed in found)
    assert abs(n_b - 450) < 4 * np.sqrt(600 * 3 / 4 / 4)


def test_what_nobody_bought_comes_only_where_nothing_else_is_left() -> None:
    domain = make_domain(letters("abcdxyz"), {"u": "xyz", "v": "xyz"}, {"a": 5})
    for listed in negatives(popular_candidates(domain, "test", ask(domain, 4))):
        assert "a" in listed
        assert len(set(listed) & set("bcd")) == 2


def tf(targets: Sequence[str], items: Sequence[str]) -> np.ndarray:
    """Alike by the alphabet: neighbours most, whichever side."""
    return np.array([[-abs(ord(t) - ord(i)) for i in items] for t in targets], dtype=np.float64)


def test_similar_negatives_are_the_nearest_that_may_be_held() -> None:
    titles = letters("abcdefghi") | {"g": "title e"}  # looks like the target of u
    domain = make_domain(titles, {"u": "dce", "v": "abc"})
    u, v = negatives(similar_candidates(domain, "test", ask(domain, 4), tf))
    assert set(u) == {"f", "b", "h"}  # 1, 3 and 3 away: c and d are u's own, g is called like e
    assert set(v) == {"d", "e", "f"} or set(v) == {"d", "g", "f"}  # e and g share a title
    assert "e" in v  # nearer than g


def test_equally_similar_negatives_are_chosen_by_a_fixed_hash() -> None:
    names = [f"i{n:02d}" for n in range(40)]
    bought = {f"u{n:02d}": [names[n], names[n + 20], names[n + 1]] for n in range(19)}
    domain = make_domain({name: f"title {name}" for name in names}, bought)
    alike = lambda targets, items: np.zeros((len(targets), len(items)))  # noqa: E731
    found = similar_candidates(domain, "test", ask(domain, 4), alike)
    assert found == similar_candidates(domain, "test", ask(domain, 4), alike)
    assert len({item for listed in negatives(found) for item in listed}) > 15  # not the same few for every target


def draw(kind: str, domain: Domain, split: str, asked: Sequence[Example]) -> list[Example]:
    return popular_candidates(domain, split, asked) if kind == "popular" else similar_candidates(domain, split, asked, tf)


@pytest.mark.parametrize("kind", ["popular", "similar"])
def test_exclusions(kind: str) -> None:
    titles = letters("abcdefghijklmnop") | {"m": "title a", "n": "title o"}  # m is called like a, n like o
    domain = make_domain(titles, {"u": "abcd", "v": "mefg"}, dict.fromkeys("acehijklmno", 3))
    for split in ("valid", "test"):
        u, v = negatives(draw(kind, domain, split, ask(domain, 7, split)))
        assert not set(u) & set("abcdm")  # own items of every split, and what is called like one
        assert not set(v) & set("mefga")
        assert not {"n", "o"} <= set(u)
        assert not {"n", "o"} <= set(v)
        assert len(u) == len(v) == 6


@pytest.mark.parametrize("kind", ["popular", "similar"])
def test_a_list_depends_on_its_user_alone(kind: str) -> None:
    titles = letters("abcdefghijklmnopqrstuvwxyz")
    domain = make_domain(titles, {"u": "abc", "v": "def", "w": "abc"}, dict.fromkeys(titles, 2))
    together = draw(kind, domain, "test", ask(domain, 6))
    assert draw(kind, domain, "test", ask(domain, 6, users=["v"])) == [together[1]]
    assert draw(kind, domain, "test", ask(domain, 6, users=["w", "v", "u"])) == together[::-1]
    assert together[0].candidates != together[2].candidates  # the same question of another user: other draws, or another order
    assert {e.candidates.index(e.target) for e in draw(kind, domain, "valid", ask(domain, 6, "valid")) + together} != {0}


@pytest.mark.parametrize("kind", ["popular", "similar"])
def test_too_few_items_are_one_line(kind: str) -> None:
    domain = make_domain(letters("abcdef"), {"u": "abc"}, {"d": 1})
    assert negatives(draw(kind, domain, "test", ask(domain, 4)))[0]  # three are free
    with pytest.raises(DataError, match="4 negatives are needed, but for user 'u' only 3 of 6 titles"):
        draw(kind, domain, "test", ask(domain, 5))


def test_without_training_events_nothing_is_popular() -> None:
    domain = make_domain(letters("abcdef"), {"u": "ab"})
    with pytest.raises(DataError, match="'toy' has no training events"):
        popular_candidates(domain, "test", ask(domain, 3))


def test_the_whole_catalogue_but_the_users_other_items() -> None:
    domain = make_domain(letters("abcdefg") | {"f": "title a", "g": "title c"}, {"u": "abc", "v": "def"})
    catalogue, asked = catalogue_of(domain, "test"), ask(domain, 3)
    free = free_items(catalogue, asked)
    held = ["".join(i for i, f in zip("abcdefg", row, strict=True) if f) for row in free]
    assert held == ["cde", "bcfg"]  # u: not a, b, f (called like a), g (called like the target c); v: not d, e, a (called like f)


def test_one_hash_tells_what_is_asked() -> None:
    domain = make_domain(letters("abcdefg"), {"u": "abc", "v": "def"})
    catalogue, asked = catalogue_of(domain, "test"), ask(domain, 3)
    sha = whole_catalogue_sha256(catalogue, asked)
    assert sha == whole_catalogue_sha256(catalogue, asked[::-1])
    other = [
        (catalogue, asked[:1]),
        (catalogue_of(make_domain(letters("abcdefgh"), {"u": "abc", "v": "def"}), "test"), asked),
        (catalogue_of(make_domain(letters("abcdefg"), {"u": "abgc", "v": "def"}), "test"), asked),
        (catalogue, ask(domain, 3, "valid")),
    ]
    assert len({sha, *(whole_catalogue_sha256(*pair) for pair in other)}) == 5


def test_validation_under_a_time_split_holds_what_was_bought_by_its_end() -> None:
    domain = make_domain(letters("abcdefgh"), {"u": "abc", "v": "defgh"}, cuts=Cuts(valid=1, test=3))
    assert catalogue_of(domain, "valid").items.to_list() == list("abcdef")  # g and h were first bought at 3 and 4
    assert catalogue_of(domain, "test").items.to_list() == list("abcdefgh")


def test_another_order_holds_the_same_candidates() -> None:
    asked = [Example("toy", f"u{n:03d}", (), "t", ("t", "a", "b", "c", "d")) for n in range(500)]
    found = in_other_order(asked, 1)
    assert all(sorted(f.candidates) == sorted(e.candidates) for f, e in zip(found, asked, strict=True))
    places = Counter(e.candidates.index("t") for e in found)
    assert all(abs(places[p] - 100) < 4 * np.sqrt(500 * 0.2 * 0.8) for p in range(5))
    assert found == in_other_order(asked, 1)
    assert found[7:8] == in_other_order(asked[7:8], 1)
    assert found != in_other_order(asked, 2)
