"""What every ranker promises, checked on each entry of RANKERS: a new line there is tested here."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError, ConfigError, UsageError
from recmerge.rankers import RANKERS, CatalogueRanker, Ranker, load_ranker, missing_modules, new_ranker, save_ranker

N_USERS, N_CANDIDATES = 24, 5
SLOW = sorted(name for name, ranker in RANKERS.items() if ranker.is_slow)  # trained by steps: a few suffice for what is not about learning
LEARNS = sorted(set(RANKERS) - {"random", *SLOW})  # whose first choice on `checkerboard` must be the obvious one
ALL, E0, O0, UNSEEN = 2, 3, 4, 0  # places in the lists of `questions`
# The place of the one best candidate of every question; None: nothing is known of that user, so all candidates score the same.
OWN_TITLES: list[int | None] = [*[ALL] * 8, None, UNSEEN]  # one's own purchases have the likest titles
LIKE_THE_LAST: list[int | None] = [*[E0, O0] * 4, None, UNSEEN]  # "Title e1" was bought last, and "Title e0" reads much like it
BOUGHT_TOGETHER: list[int | None] = [*[E0, O0] * 4, None, None]  # buyers of e1 buy e0, buyers of o1 buy o0; nobody bought `unseen`
OWN_PURCHASES: list[int | None] = [*[ALL] * 8, None, None]  # what one bought comes first of all, and most of all what all others bought too
OBVIOUS = {
    "tfidf": OWN_TITLES,
    "attributes": LIKE_THE_LAST,
    "sentence_embeddings": LIKE_THE_LAST,
    **dict.fromkeys(("cooccurrence", "itemknn", "ease"), BOUGHT_TOGETHER),
    "als": OWN_PURCHASES,
}
BOUGHT_BY_EVERYBODY: list[int | None] = [ALL] * 10  # of every ranker not named above


def checkerboard(name: str = "sports") -> Domain:
    """Even users go on buying e0, e1, ...; odd users o0, o1, ...; everybody began with `all`.

    The last two events of each user are valid and test, and their items are new: only they hold `late`.
    """
    events = []
    for u in range(N_USERS):
        side = "eo"[u % 2]
        items = ["all", *(f"{side}{(u // 2 + k) % 6}" for k in range(4)), "late", "late2"]
        splits = ["train"] * (len(items) - 2) + ["valid", "test"]
        events += [(f"u{u:02d}", item, day, day, split) for day, (item, split) in enumerate(zip(items, splits, strict=True))]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "position": pl.Int32, "split": pl.String}
    frame = pl.DataFrame(events, schema=schema, orient="row")
    ids = sorted({*frame["item_id"], "unseen"})
    categories = [f"shop {i[0] if i[1:].isdigit() else i}" for i in ids]  # e0, e1, ... in one, o0, o1, ... in another
    items = pl.DataFrame({"item_id": ids, "title": [f"Title {i}" for i in ids], "brand": [""] * len(ids), "category": categories})
    users = frame.group_by("user_id").len("n_events").sort("user_id").with_columns(tied=pl.lit(False))
    later = frame.filter(pl.col("split").is_in(["train"]) & (pl.col("position") > 0))
    lists = pl.lit(["all", "e0", "o0", "late", "unseen"], dtype=pl.List(pl.String)).alias("candidates")
    rows = later.select("user_id", "position", pl.lit("all").alias("target"), lists)
    candidates = frame.filter(pl.col("split") != "train").select("split", "user_id", pl.col("item_id").alias("target"), lists)
    return Domain(name, "clean", items, frame, users, rows, candidates)


def turned_round() -> Domain:
    """The checkerboard where e and o have changed places, in the events and in the titles."""
    domain, other = checkerboard(), {f"{a}{n}": f"{b}{n}" for a, b in ("eo", "oe") for n in range(6)}
    titles = domain.items.with_columns(title=pl.lit("Other ") + pl.col("item_id"))
    return replace(domain, items=titles, events=domain.events.with_columns(pl.col("item_id").replace(other)))


def questions(domain: str = "sports") -> list[Example]:
    lists = ("unseen", "late", "all", "e0", "o0")
    known = [Example(domain, f"u{u:02d}", ("all", "eo"[u % 2] + "1"), "all", lists) for u in range(8)]
    return [*known, Example(domain, "nobody", (), "all", lists), Example(domain, "u01", ("unseen",) * 300, "all", lists)]


def untrained(name: str, seed: int = 42) -> Ranker:
    return new_ranker(name, seed=seed, settings={"epochs": 2} if name in SLOW else {})


def installed(name: str) -> str:
    """The name; the test is skipped where what the ranker needs is not installed."""
    if missing_modules(name):
        pytest.skip(f"{name} needs {missing_modules(name)}")
    return name


@pytest.fixture(params=sorted(RANKERS))
def name(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


def freshly_fitted(name: str, seed: int = 42) -> Ranker:
    ranker = untrained(name, seed)
    ranker.fit(checkerboard())
    return ranker


fitted = cache(freshly_fitted)  # for tests that leave it as it is


def test_scores_have_the_promised_shape(name: str) -> None:
    scores = fitted(name).score(questions())
    assert scores.shape == (len(questions()), N_CANDIDATES)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert fitted(name).score([]).shape[0] == 0


@pytest.mark.parametrize("learner", LEARNS)
def test_learns_the_obvious(learner: str) -> None:
    for scores, best in zip(fitted(installed(learner)).score(questions()), OBVIOUS.get(learner, BOUGHT_BY_EVERYBODY), strict=True):
        winners = [place for place, score in enumerate(scores) if score == scores.max()]
        assert winners == ([best] if best is not None else list(range(N_CANDIDATES)))


ROWS = [name for name in SLOW if "rows" in RANKERS[name].settings_class.model_fields]


@pytest.mark.parametrize(("learner", "more"), [*((name, {}) for name in SLOW), *((name, {"rows": "purchases"}) for name in ROWS)])
def test_learns_what_comes_next(learner: str, more: dict[str, object]) -> None:
    has_length = "max_history" in RANKERS[installed(learner)].settings_class.model_fields  # a filter reads rows padded to it
    ranker, domain = new_ranker(learner, settings={"max_history": 8, **more} if has_length else {}), checkerboard()
    ranker.fit(replace(domain, candidates=domain.candidates.filter(pl.col("split") != "valid")))  # nobody to stop for: all epochs
    lists = ("unseen", "late", "all", "e2", "o2")
    scores = ranker.score([replace(q, candidates=lists) for q in questions()])
    assert [lists[row.argmax()] for row in scores[:8]] == ["e2", "o2"] * 4  # e1 was bought last, or o1
    assert (scores[8] == scores[8, 0]).all()  # nothing is known of that user


def test_held_out_events_are_never_looked_at(name: str) -> None:
    domain = checkerboard()
    held_out = pl.col("split") == "test" if RANKERS[name].stops_on_validation else pl.col("split") != "train"
    swapped = domain.events.with_columns(item_id=pl.when(held_out).then(pl.lit("unseen")).otherwise("item_id"))
    other = untrained(name)
    other.fit(Domain(domain.name, domain.profile, domain.items, swapped, domain.users, domain.rows, domain.candidates))
    assert (other.score(questions()) == fitted(name).score(questions())).all()


def test_one_user_at_a_time_is_the_same(name: str) -> None:
    ranker = fitted(name)
    together = ranker.score(questions())
    alone = np.concatenate([ranker.score([q]) for q in questions()])
    assert together == pytest.approx(alone, abs=1e-6)


def test_order_of_candidates_changes_nothing(name: str) -> None:
    ranker = fitted(name)
    turned = [Example(q.domain, q.user_id, q.history, q.target, q.candidates[::-1]) for q in questions()]
    assert ranker.score(turned)[:, ::-1] == pytest.approx(ranker.score(questions()), abs=1e-6)


def test_equal_seeds_repeat(name: str) -> None:
    assert (freshly_fitted(name, 7).score(questions()) == freshly_fitted(name, 7).score(questions())).all()


def test_a_second_fit_starts_afresh(name: str) -> None:
    ranker = untrained(name)
    ranker.fit(turned_round())
    ranker.fit(checkerboard())
    assert (ranker.score(questions()) == fitted(name).score(questions())).all()


def test_a_set_of_one_domain_is_that_domain(name: str) -> None:
    domain = checkerboard()
    ranker = untrained(name)
    ranker.fit(TrainingSet("sports", {"sports": domain}, domain.rows.select(pl.lit("sports").alias("domain"), pl.all())))
    assert (ranker.score(questions()) == fitted(name).score(questions())).all()


def test_saving_keeps_the_scores_and_no_pickle(name: str, tmp_path: Path) -> None:
    ranker = fitted(name, 7)
    save_ranker(ranker, tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors"}
    again = new_ranker(name)
    load_ranker(again, tmp_path)
    assert (again.score(questions()) == ranker.score(questions())).all()


def test_saving_twice_gives_equal_bytes(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_ranker(freshly_fitted(name), tmp_path / folder)
    for path in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_what_cannot_be_loaded_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_ranker(new_ranker(name), tmp_path)
    save_ranker(fitted(name), tmp_path)
    card = tmp_path / "ranker" / "ranker.json"
    whole = card.read_text()
    broken = {whole[:-9]: "cannot be read", whole.replace('"format": 2', '"format": 9'): "format 9", whole.replace(f'"{name}"', '"x"'): "ranker 'x'"}
    for text, what in broken.items():
        card.write_text(text)
        with pytest.raises(ArtifactError, match=what):
            load_ranker(new_ranker(name), tmp_path)
    card.write_text(whole)
    for tensors in tmp_path.rglob("*.safetensors"):
        tensors.write_bytes(tensors.read_bytes()[:-3])
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_ranker(new_ranker(name), tmp_path)


def test_the_whole_catalogue_gets_the_scores_of_the_candidates(name: str) -> None:
    ranker, lists = fitted(name), ["unseen", "late", "all", "e0", "o0"]
    if not isinstance(ranker, CatalogueRanker):
        pytest.skip(f"{name} cannot score a whole catalogue")
    catalogue = checkerboard().items["item_id"].to_list()
    scores = ranker.score_all(questions(), [*catalogue, "nowhere"])
    assert scores.shape == (len(questions()), len(catalogue) + 1)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert scores[:, [catalogue.index(item) for item in lists]] == pytest.approx(ranker.score(questions()), abs=1e-6)
    assert scores[:, ::-1] == pytest.approx(ranker.score_all(questions(), ["nowhere", *catalogue[::-1]]), abs=1e-6)
    assert ranker.score_all([], catalogue).shape == (0, len(catalogue))
    unknown = ranker.score_all(questions(), [*catalogue, *(f"nowhere {n}" for n in range(101))])[:, len(catalogue) :]
    if name != "random":
        assert (unknown == unknown[:, :1]).all()  # what is equal ties to the last bit


def test_saving_keeps_the_scores_of_the_whole_catalogue(name: str, tmp_path: Path) -> None:
    ranker, again = fitted(name), new_ranker(name)
    save_ranker(ranker, tmp_path)
    load_ranker(again, tmp_path)
    if isinstance(ranker, CatalogueRanker) and isinstance(again, CatalogueRanker):
        catalogue = checkerboard().items["item_id"].to_list()
        assert (again.score_all(questions(), catalogue) == ranker.score_all(questions(), catalogue)).all()


def test_domains_are_learnt_apart(name: str) -> None:
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    both = untrained(name)
    if both.learns_together:
        pytest.skip(f"{name} learns the domains of a set together")
    both.fit(TrainingSet("beauty_sports", domains, pl.DataFrame()))
    assert both.score(questions()) == pytest.approx(fitted(name).score(questions()), abs=1e-6)


def test_another_domain_is_survived(name: str) -> None:
    assert np.isfinite(fitted(name).score(questions("elsewhere"))).all()


@pytest.mark.parametrize("n_events", [0, 1, 2])
def test_hardly_any_training_events_are_survived(name: str, n_events: int) -> None:
    domain = checkerboard()
    few = replace(domain, events=pl.concat([domain.events.head(n_events), domain.events.filter(pl.col("split") != "train")]))
    ranker = untrained(name)
    ranker.fit(few)
    assert np.isfinite(ranker.score(questions())).all()


def test_a_candidate_named_twice_scores_the_same(name: str) -> None:
    twice = [replace(q, candidates=("all", "e0", "all", "unseen", "unseen")) for q in questions()]
    scores = fitted(name).score(twice)
    assert (scores[:, [0, 3]] == scores[:, [2, 4]]).all()


@pytest.mark.parametrize("name", sorted(n for n in RANKERS if RANKERS[n].settings_class.model_fields))
def test_settings_are_kept_and_checked(name: str, tmp_path: Path) -> None:
    installed(name)
    fields = RANKERS[name].settings_class.model_fields
    number = "epochs" if name in SLOW else next(key for key, f in fields.items() if isinstance(f.default, int | float) or f.annotation == (int | None))
    changed = new_ranker(name, settings={number: fields[number].default / 2 if isinstance(fields[number].default, float) else 3})
    changed.fit(checkerboard())
    save_ranker(changed, tmp_path)
    again = new_ranker(name)
    load_ranker(again, tmp_path)
    assert again.settings == changed.settings != new_ranker(name).settings
    assert (again.score(questions()) == changed.score(questions())).all()
    with pytest.raises(ConfigError, match=rf"ranker\.{number} = 'many'"):
        new_ranker(name, settings={number: "many"})
    with pytest.raises(ConfigError, match=f"did you mean '{number}'"):
        new_ranker(name, settings={f"{number}_": 1})


def test_what_is_not_installed_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RANKERS["popularity"], "needs", ("numpy", "no_such_module"))
    with pytest.raises(UsageError, match="ranker 'popularity' needs no_such_module") as refused:
        new_ranker("popularity")
    assert refused.value.fix == "pip install 'recmerge[floors]'"


def test_each_entry_knows_its_name() -> None:
    assert {name: ranker.name for name, ranker in RANKERS.items()} == {name: name for name in RANKERS}


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'popularity'"):
        new_ranker("popularty")
