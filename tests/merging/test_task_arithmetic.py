"""Task arithmetic: sums, differences, and the rank they are kept at."""

from recmerge.merging.task_arithmetic import task_arithmetic
from tests.merging.test_rules import ABSENT, ONE, TWO, dense


def test_by_hand() -> None:
    # task vectors 2 [[1,1],[0,0]] and 0.5 [[0,0],[2,4]]
    found = task_arithmetic([ONE, TWO, ABSENT], [1.0, 1.0, 1.0])
    assert dense(found) == [[2, 2], [1, 2]]
    assert found.rank == 2  # stacked, not formed
    assert dense(task_arithmetic([ONE, TWO], [1.0, 1.0], lambda_=0.5)) == [[1, 1], [0.5, 1]]


def test_a_negative_weight_takes_a_domain_out() -> None:
    assert dense(task_arithmetic([ONE, TWO], [1.0, -1.0])) == [[2, 2], [-1, -2]]
    both = [ONE, TWO, ONE]
    assert dense(task_arithmetic(both, [1.0, 1.0, -1.0])) == [[0, 0], [1, 2]]  # what went in comes out again
