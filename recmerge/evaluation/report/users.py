"""The part of an evaluation's page that shows some users."""

from collections.abc import Sequence

from recmerge.evaluation.examples import BETTER, N_HISTORY, N_TOP, PER_KIND, WORSE, Example, Picked, Shown
from recmerge.evaluation.report.charts import shortened
from recmerge.evaluation.report.user_cards import Proposal, User, Users

_MAX_TITLE = 120
_COUNTED = {1: "One user", 2: "Two users", 3: "Three users", 4: "Four users", 5: "Five users", 6: "Six users"}


def users_section(shown: Shown, runs: Sequence[str]) -> Users:
    """Show users.

    Args:
        shown: The users.
        runs: Names of the runs that rank for them.

    Returns:
        The section.
    """
    runs = [shortened(run) for run in runs]
    reading = (
        f"History: the last {N_HISTORY} purchases before the target, oldest first. Candidates: the first {N_TOP} of {runs[0]}, and the target. "
        "Ranks: candidates of one score share the mean of their places; – is not ranked, or not among the stored places. "
        f"Titles of more than {_MAX_TITLE} characters are cut in the middle."
    )
    return Users("Some users", runs, [_user(e, runs) for e in shown.examples], f"{_rule(shown.picked, runs, shown.seed)} {reading}")


def _rule(picked: Picked, runs: Sequence[str], seed: int) -> str:
    if picked.n_better is None or picked.n_worse is None:
        return f"{_COUNTED[len(picked.users)]} of {picked.n_users:,}, drawn at random (seed {seed})."
    return (
        f"Drawn at random (seed {seed}), not chosen by hand: up to {PER_KIND} of the {picked.n_better:,} users whose target {runs[0]} ranks better than "
        f"{runs[1]}, up to {PER_KIND} of the {picked.n_worse:,} where it is worse, and {PER_KIND} of the rest of all {picked.n_users:,}."
    )


def _user(example: Example, runs: Sequence[str]) -> User:
    reason = {BETTER: f"{runs[0]} is better", WORSE: f"{runs[0]} is worse"}.get(example.kind, "drawn at random")
    n = example.n_history
    past = "No purchase before" if n == 0 else f"The last {len(example.history)} of {n:,} purchases before" if n > len(example.history) else "Bought before"
    proposals = [Proposal(shortened(c.title, _MAX_TITLE), c.is_target, [_rank(r) for r in c.ranks]) for c in example.candidates]
    heading = f"{shortened(example.user_id)}: {reason}"
    return User(heading, past, [shortened(title, _MAX_TITLE) for title in example.history], proposals)


def _rank(rank: float | None) -> str:
    return "–" if rank is None else f"{rank:g}"
