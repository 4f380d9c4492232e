import numpy as np

from recmerge.data.draws import below, combine, splitmix64, text_key, text_keys


def test_splitmix64_gives_the_published_sequence() -> None:
    # The reference generator from state 0 adds the golden ratio before each output.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(golden * i) % 2**64 for i in range(3)], dtype=np.uint64)
    assert [hex(v) for v in splitmix64(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_below_stays_below_and_reaches_every_number_equally() -> None:
    keys = combine(np.array([text_key("x")]), np.arange(70_000))
    drawn = below(keys, 7)
    counts = np.bincount(drawn, minlength=7)
    assert len(counts) == 7
    assert np.all(abs(counts - 10_000) < 5 * np.sqrt(10_000 * 6 / 7))


def test_a_text_key_depends_on_its_own_text_and_base_alone() -> None:
    one, two = text_key("a"), text_key("b")
    assert text_keys(["u1", "u2"], one)[1] == text_keys(["u2"], one)[0]
    assert text_keys(["u1"], one)[0] != text_keys(["u1"], two)[0]


def test_key_parts_are_kept_apart() -> None:
    assert text_key("ab", "c") != text_key("a", "bc")
