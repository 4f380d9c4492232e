from pathlib import Path

import numpy as np
import pytest
from baskets import basket_domain, scores

from recmerge.errors import ArtifactError, ConfigError, ResourceError
from recmerge.rankers import ease
from recmerge.rankers.ease import EaseRanker, EaseSettings


def fitted(baskets: dict[str, str], regularization: float) -> EaseRanker:
    ranker = EaseRanker(EaseSettings(regularization=regularization))
    ranker.fit(basket_domain(baskets))
    return ranker


def test_two_items_by_hand() -> None:
    # X'X + I = [[3, 1], [1, 2]], its inverse [[2, -1], [-1, 3]] / 5; -P_ij / P_jj
    ranker = fitted({"u1": "ab", "u2": "a"}, 1)
    assert scores(ranker, "a", "ba") == pytest.approx([(1 / 5) / (3 / 5), 0])
    assert scores(ranker, "b", "ba") == pytest.approx([0, (1 / 5) / (2 / 5)])
    assert scores(ranker, "ab", "ba") == pytest.approx([1 / 3, 1 / 2])


def test_what_was_bought_twice_counts_once() -> None:
    once, twice = fitted({"u1": "ab", "u2": "a"}, 1), fitted({"u1": "abab", "u2": "aa"}, 1)
    assert scores(twice, "aa", "b") == scores(once, "a", "b")


def test_what_is_unknown_scores_zero() -> None:
    ranker = fitted({"u1": "ab", "u2": "a"}, 1)
    assert scores(ranker, "a", "?yz") == [0, 0, 0]
    assert scores(ranker, "?", "ab") == [0, 0]
    assert scores(ranker, "", "ab") == [0, 0]


def test_each_column_is_a_ridge_regression_on_all_others() -> None:
    draw = np.random.default_rng(0)
    bought = (draw.random((80, 10)) < 0.3).astype(float)
    letters, strength = "abcdefghij", 3.0
    ranker = fitted({f"u{u:02d}": "".join(letter for letter, there in zip(letters, row, strict=True) if there) for u, row in enumerate(bought)}, strength)
    for column, item in enumerate(letters):
        others = [c for c in range(10) if c != column]
        rows = np.vstack([bought[:, others], np.sqrt(strength) * np.eye(9)])
        slopes = np.linalg.lstsq(rows, np.append(bought[:, column], np.zeros(9)), rcond=None)[0]
        assert [scores(ranker, letters[c], item)[0] for c in others] == pytest.approx(slopes, abs=1e-6)


def test_a_catalogue_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "available_memory", lambda: 31)
    with pytest.raises(ResourceError, match="for the 2 items of 'sports'"):
        fitted({"u1": "ab"}, 1)
    monkeypatch.setattr(ease, "available_memory", lambda: 32)  # the matrix of 4 numbers, and as much again to save it
    fitted({"u1": "ab"}, 1)
    monkeypatch.setattr(ease, "available_memory", lambda: None)
    fitted({"u1": "ab"}, 1)


def test_the_inverse_is_made_in_place() -> None:
    matrix = np.asarray([[3, 1], [1, 2]], dtype=np.float32)
    ease._invert(matrix)
    assert matrix == pytest.approx(np.asarray([[2, -1], [-1, 3]]) / 5)


def test_too_little_regularisation_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    indefinite = np.asarray([[1, 2], [2, 1]], dtype=np.float32)
    invert = ease._invert
    with pytest.raises(ArithmeticError):
        invert(indefinite.copy())
    monkeypatch.setattr(ease, "_invert", lambda matrix: invert(indefinite.copy()))  # as rounding may leave it
    with pytest.raises(ConfigError, match=r"ranker\.regularization = 1e-12 is too small"):
        fitted({"u1": "ab"}, 1e-12)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    fitted({"u1": "abc"}, 1).save(tmp_path)
    card = tmp_path / "ranker.json"
    card.write_text(card.read_text().replace('"b",', ""))
    with pytest.raises(ArtifactError, match="do not fit together"):
        EaseRanker().load(tmp_path)
