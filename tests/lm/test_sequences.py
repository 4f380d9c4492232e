"""Training sequences: every sampled title predicted once, whole, with its end token."""

import polars as pl
import pytest

from recmerge.data.dataset import Domain
from recmerge.data.training_set import TrainingSet
from recmerge.errors import DataError
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.sequences import IGNORE, build_sequences


def make_set(titles: list[str], positions: list[int], with_answer: bool = False) -> TrainingSet:
    """One user who bought items 0, 1, 2 ... in order; rows at the given positions."""
    ids = [f"i{k}" for k in range(len(titles))]
    items = pl.DataFrame({"item_id": ids, "title": titles, "brand": "", "category": ""})
    events = pl.DataFrame({"user_id": "u", "item_id": ids, "timestamp": range(len(ids)), "position": range(len(ids)), "split": "train"})
    rows = pl.DataFrame(
        {"user_id": ["u"] * len(positions), "position": positions, "target": [ids[p] for p in positions], "candidates": [ids[:2] for _ in positions]}
    )
    if with_answer:
        rows = rows.with_columns(answer=pl.Series([[ids[p], *ids[:1]] for p in positions]))
    domain = Domain("d", "clean", items, events, pl.DataFrame(), rows, pl.DataFrame())
    return TrainingSet("d", {"d": domain}, rows.select(pl.lit("d").alias("domain"), pl.all()))


def decode(tok, ids) -> str:
    return tok.decode([i for i in ids if i != IGNORE])


def test_open_predicts_every_sampled_title_in_one_pass(tokenizer) -> None:
    out = build_sequences(make_set(["aa", "b", "cc"], [1, 2]), Encoder(tokenizer, PromptSettings("open", 50)))
    assert [tokenizer.decode(i) for i in out.input_ids] == ["<start>aa<end>b<end>cc<end>"]
    assert [decode(tokenizer, label) for label in out.labels] == ["b<end>cc<end>"]  # the first title has no history: not predicted
    assert (out.counts.rows, out.counts.rows_trained, out.counts.rows_trimmed, out.counts.rows_dropped) == (2, 2, 0, 0)


def test_open_takes_no_loss_of_rows_not_sampled(tokenizer) -> None:
    out = build_sequences(make_set(["aa", "b", "cc", "d"], [2]), Encoder(tokenizer, PromptSettings("open", 50)))
    assert decode(tokenizer, out.labels[0]) == "cc<end>"
    assert tokenizer.decode(out.input_ids[0]) == "<start>aa<end>b<end>cc<end>"  # nothing behind the last sampled title


@pytest.mark.parametrize("max_length", [8, 9, 12, 17, 40])
@pytest.mark.parametrize("max_history", [None, 1, 3])
def test_open_windows_predict_each_title_once_and_whole(tokenizer, max_length: int, max_history: int | None) -> None:
    titles = [c * (1 + i % 4) for i, c in enumerate("abcdefghijklm")]
    out = build_sequences(make_set(titles, list(range(1, 13))), Encoder(tokenizer, PromptSettings("open", max_length, max_history)))
    predicted = "".join(decode(tokenizer, label) for label in out.labels)
    assert predicted == "".join(f"{t}<end>" for t in titles[1:])
    assert all(len(ids) <= max_length for ids in out.input_ids)
    assert all(len(a) == len(b) for a, b in zip(out.input_ids, out.labels, strict=True))
    if max_history is not None:
        assert all(ids.count(2) <= max_history + 1 for ids in out.input_ids)
    assert out.counts.rows_trained == 12


@pytest.mark.parametrize("max_history", [None, 1, 2, 3])
def test_without_a_start_token_a_window_begins_with_a_title(tokenizer, max_history: int | None) -> None:
    titles = [c * (1 + i % 4) for i, c in enumerate("abcdefghijklm")]
    encoder = Encoder(tokenizer, PromptSettings("open", 12, max_history))
    encoder.__dict__["start_ids"] = ()  # as of a base whose start is its end, and which has no padding
    out = build_sequences(make_set(titles, list(range(1, 13))), encoder)
    assert "".join(decode(tokenizer, label) for label in out.labels) == "".join(f"{t}<end>" for t in titles[1:])
    assert out.counts.rows_dropped == 0


def test_open_drops_and_counts_a_title_that_never_fits(tokenizer) -> None:
    out = build_sequences(make_set(["a", "x" * 30, "b"], [1, 2]), Encoder(tokenizer, PromptSettings("open", 10)))
    assert "".join(decode(tokenizer, label) for label in out.labels) == "b<end>"
    assert (out.counts.rows_trained, out.counts.rows_dropped) == (1, 1)


def test_listwise_answer_and_end_are_whole_and_prompt_takes_no_loss(tokenizer) -> None:
    out = build_sequences(make_set(["aa", "bb", "cc"], [2, 1]), Encoder(tokenizer, PromptSettings("listwise", 2000)))
    assert [decode(tokenizer, label) for label in out.labels] == ["cc<end>", "bb<end>"]
    assert all(tokenizer.decode(i).endswith("Answer:" + decode(tokenizer, label)) for i, label in zip(out.input_ids, out.labels, strict=True))


def test_published_answers_with_its_titles_joined(tokenizer) -> None:
    out = build_sequences(make_set(["aa", "bb", "cc"], [2], with_answer=True), Encoder(tokenizer, PromptSettings("published", 2000)))
    assert decode(tokenizer, out.labels[0]) == "cc||aa<end>"


def test_max_rows_takes_the_first_rows(tokenizer) -> None:
    out = build_sequences(make_set(["aa", "bb", "cc"], [2, 1]), Encoder(tokenizer, PromptSettings("listwise", 2000)), max_rows=1)
    assert [decode(tokenizer, label) for label in out.labels] == ["cc<end>"]


def test_no_more_prompts_are_made_than_are_trained_on(tokenizer) -> None:
    data, encoder = make_set(["a", "b", "c", "d" * 1900, "e", "f"], [1, 2, 3, 4, 5]), Encoder(tokenizer, PromptSettings("listwise", 2000))
    made = [build_sequences(data, encoder, enough=2, seed=seed) for seed in range(20)]
    for out in made:
        counts = out.counts
        assert counts.sequences == counts.rows_trained == 2
        assert counts.rows_trained + counts.rows_dropped + counts.rows_unread == counts.rows == 5
    begun = {decode(tokenizer, out.labels[0]) for out in made}
    assert begun == {f"{title}<end>" for title in "bcef"}  # another seed, other rows; the long answer never fits
    whole = [build_sequences(data, encoder, enough=n, seed=7) for n in (5, None)]
    assert whole[0] == whole[1]
    assert whole[1].counts.rows_unread == 0


def test_no_trainable_row_is_an_error(tokenizer) -> None:
    with pytest.raises(DataError, match="none of the 1 training rows"):
        build_sequences(make_set(["aa", "bb"], [1]), Encoder(tokenizer, PromptSettings("listwise", 40)))
