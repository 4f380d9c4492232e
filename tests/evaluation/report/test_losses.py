import pytest

from recmerge.evaluation.report.losses import MAX_CURVES, Losses, loss_sections, window_means
from recmerge.evaluation.report.page import LineChart


def falling(n: int) -> list[tuple[float, float]]:
    return [(float(step), 10.0 / step) for step in range(1, n + 1)]


def charts(losses: list[Losses]) -> list[LineChart]:
    sections = loss_sections(losses)
    assert all(isinstance(section, LineChart) for section in sections)
    return [section for section in sections if isinstance(section, LineChart)]


def test_windows_keep_the_mean() -> None:
    assert window_means([(1, 4.0), (2, 2.0), (3, 1.0), (4, 0.0), (5, 7.0)], 2) == [(1.5, 3.0), (3.5, 0.5), (5.0, 7.0)]
    assert window_means(falling(3), 1) == falling(3)


def test_short_curves_are_not_smoothed() -> None:
    train, valid = charts([Losses("sports", falling(100), falling(3))])
    assert (train.title, valid.title) == ("Training loss", "Validation loss")
    assert list(train.lines[0].ys) == [loss for _, loss in falling(100)]
    assert "not smoothed" in train.note
    assert list(valid.lines[0].xs) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("n", "points", "said"), [(101, 51, "mean of 2 "), (1000, 100, "mean of 10 "), (1001, 91, "mean of 11 ")])
def test_long_curves_are_smoothed_and_say_so(n: int, points: int, said: str) -> None:
    (train,) = charts([Losses("sports", falling(n), [])])
    assert len(train.lines[0].xs) == points
    assert said in train.note
    (mixed,) = charts([Losses("sports", falling(n), []), Losses("toys", falling(5), [])])
    assert "mean of 1 to " in mixed.note


def test_validation_is_never_smoothed() -> None:
    (valid,) = charts([Losses("sports", [], falling(300))])
    assert valid.title == "Validation loss"
    assert len(valid.lines[0].xs) == 300


def test_at_most_eight_curves() -> None:
    (train,) = charts([Losses("none", [], []), *(Losses(f"a{i}", falling(2), []) for i in range(10))])
    assert [line.label for line in train.lines] == [f"a{i}" for i in range(MAX_CURVES)]
    assert "first 8 of 10 adapters" in train.note


def test_no_curve_no_section() -> None:
    assert loss_sections([]) == []
    assert loss_sections([Losses("ranker", [], [])]) == []
