"""What every ranker promises, checked on each entry of RANKERS: a new line there is tested here."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError, UsageError
from recmerge.rankers import RANKERS, load_ranker, new_ranker, save_ranker

N_USERS, N_CANDIDATES = 24, 5
LEARNS = sorted(set(RANKERS) - {"random"})  # whose first choice on `checkerboard` must be the obvious one
ALL, E0, O0, UNSEEN = 2, 3, 4, 0  # places in the lists of `questions`
# The place of the one best candidate of every question; None: nothing is known of that user, so all candidates score the same.
OBVIOUS: dict[str, list[int | None]] = {
    "tfidf": [*[ALL] * 8, None, UNSEEN],  # one's own purchases have the likest titles
    "cooccurrence": [*[E0, O0] * 4, None, None],  # buyers of e1 buy e0, buyers of o1 buy o0; nobody bought `unseen`
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
    items = pl.DataFrame({"item_id": ids, "title": [f"Title {i}" for i in ids], "brand": [""] * len(ids), "category": [""] * len(ids)})
    users = frame.group_by("user_id").len("n_events").sort("user_id").with_columns(tied=pl.lit(False))
    later = frame.filter(pl.col("split").is_in(["train"]) & (pl.col("position") > 0))
    lists = pl.lit(["all", "e0", "o0", "late", "unseen"], dtype=pl.List(pl.String)).alias("candidates")
    rows = later.select("user_id", "position", pl.lit("all").alias("target"), lists)
    candidates = frame.filter(pl.col("split") != "train").select("split", "user_id", pl.col("item_id").alias("target"), lists)
    return Domain(name, "clean", items, frame, users, rows, candidates)


def questions(domain: str = "sports") -> list[Example]:
    lists = ("unseen", "late", "all", "e0", "o0")
    known = [Example(domain, f"u{u:02d}", ("all", "eo"[u % 2] + "1"), "all", lists) for u in range(8)]
    return [*known, Example(domain, "nobody", (), "all", lists), Example(domain, "u01", ("unseen",) * 300, "all", lists)]


@pytest.fixture(params=sorted(RANKERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def fitted(name: str, seed: int = 42) -> object:
    ranker = new_ranker(name, seed=seed)
    ranker.fit(checkerboard())
    return ranker


def test_scores_have_the_promised_shape(name: str) -> None:
    scores = fitted(name).score(questions())
    assert scores.shape == (len(questions()), N_CANDIDATES)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert fitted(name).score([]).shape[0] == 0


@pytest.mark.parametrize("learner", LEARNS)
def test_learns_the_obvious(learner: str) -> None:
    for scores, best in zip(fitted(learner).score(questions()), OBVIOUS.get(learner, BOUGHT_BY_EVERYBODY), strict=True):
        winners = [place for place, score in enumerate(scores) if score == scores.max()]
        assert winners == ([best] if best is not None else list(range(N_CANDIDATES)))


def test_held_out_events_are_never_looked_at(name: str) -> None:
    domain = checkerboard()
    held_out = pl.col("split") != "train"
    swapped = domain.events.with_columns(item_id=pl.when(held_out).then(pl.lit("unseen")).otherwise("item_id"))
    other = new_ranker(name, seed=42)
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
    assert (fitted(name, 7).score(questions()) == fitted(name, 7).score(questions())).all()


def test_a_second_fit_starts_afresh(name: str) -> None:
    ranker = fitted(name)
    ranker.fit(checkerboard())
    assert (ranker.score(questions()) == fitted(name).score(questions())).all()


def test_a_set_of_one_domain_is_that_domain(name: str) -> None:
    domain = checkerboard()
    ranker = new_ranker(name, seed=42)
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
        save_ranker(fitted(name), tmp_path / folder)
    for path in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_what_cannot_be_loaded_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_ranker(new_ranker(name), tmp_path)
    save_ranker(fitted(name), tmp_path)
    card = tmp_path / "ranker" / "ranker.json"
    whole = card.read_text()
    broken = {whole[:-9]: "cannot be read", whole.replace('"format": 1', '"format": 9'): "format 9", whole.replace(f'"{name}"', '"x"'): "ranker 'x'"}
    for text, what in broken.items():
        card.write_text(text)
        with pytest.raises(ArtifactError, match=what):
            load_ranker(new_ranker(name), tmp_path)
    card.write_text(whole)
    for tensors in tmp_path.rglob("*.safetensors"):
        tensors.write_bytes(tensors.read_bytes()[:-3])
        with pytest.raises(ArtifactError, match="cannot be read"):
            load_ranker(new_ranker(name), tmp_path)


def test_each_entry_knows_its_name() -> None:
    assert {name: ranker.name for name, ranker in RANKERS.items()} == {name: name for name in RANKERS}


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'popularity'"):
        new_ranker("popularty")
