"""Written answers: matched exactly, counted, never dropped."""

from recmerge.lm.parsing import parse_answer

CANDIDATES = ["Red Ball", "Blue & Green Kite", "Doll || House"]


def test_places_follow_the_answer() -> None:
    parsed = parse_answer("Blue & Green Kite||Red Ball", CANDIDATES)
    assert parsed.places == (2, 1, None)
    assert not parsed.malformed


def test_off_list_titles_keep_their_place() -> None:
    parsed = parse_answer("Yellow Ball || Red Ball", CANDIDATES)
    assert parsed.places == (2, None, None)
    assert parsed.n_off_list == 1


def test_entities_spaces_and_unicode_form_do_not_matter() -> None:
    assert parse_answer("  Blue &amp;  Green\nKite ", CANDIDATES).places == (None, 1, None)
    assert parse_answer("Cafe\u0301", ["Café"]).places == (1,)


def test_nothing_is_matched_by_likeness() -> None:
    assert parse_answer("red ball", CANDIDATES).places == (None, None, None)
    assert parse_answer("Red Ball.", CANDIDATES).n_off_list == 1


def test_empty_output_is_malformed() -> None:
    for text in ("", "   ", "||", " || "):
        parsed = parse_answer(text, CANDIDATES)
        assert parsed.malformed
        assert parsed.n_titles == 0


def test_a_repeated_title_counts_once() -> None:
    parsed = parse_answer("Red Ball||Red Ball||Blue & Green Kite", CANDIDATES)
    assert parsed.places == (1, 3, None)
    assert parsed.n_repeated == 1


def test_a_candidate_that_holds_the_separator() -> None:
    assert parse_answer("Doll || House", CANDIDATES).places == (None, None, 1)


def test_equal_candidate_titles_share_the_place() -> None:
    assert parse_answer("A", ["A", "B", "A"]).places == (1, None, 1)
