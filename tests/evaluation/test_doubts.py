from typing import Any

from recmerge.evaluation.doubts import doubts


def block(n_users: int = 1000, ties: int = 0, sha: str = "a") -> dict[str, Any]:
    return {"n_users": n_users, "ties": ties, "candidates": {"sha256": sha}}


def fused(model: str, **losses: float) -> dict[str, Any]:
    return {"fitted": {"fused": {"model": model, "held_out_log_loss": {"uniform": 3.4} | losses}}}


def test_what_is_sound_raises_no_doubt() -> None:
    assert doubts({"runs": {"one": block(), "two": block(ties=900)}, "fusion": fused("logit", logit=2.0)}) == []


def test_each_doubt_is_named() -> None:
    (other,) = doubts({"runs": {"one": block(), "two": block(sha="b")}})
    assert "not asked the same questions" in other
    (mute,) = doubts({"runs": {"one": block(), "two": block(ties=901)}})
    assert mute.startswith("'two' gives the target and other candidates one score for 90% of the users")
    (few,) = doubts({"runs": {"one": block(1)}})
    assert few.startswith("only 1 user was asked")
    (guess,) = doubts({"runs": {"one": block()}, "fusion": fused("network", logit=3.2, network=3.4)})
    assert "'fused' is no better than guessing" in guess
