"""Answers by index: labels of one token, in prompts, answers and training rows."""

from collections import Counter

import polars as pl
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recmerge.errors import ConfigError
from recmerge.lm.base import shipped_base
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.sequences import IGNORE, Sequences, build_sequences
from tests.lm.test_sequences import make_set

INDEX = PromptSettings("index", 4000)


@pytest.mark.parametrize("where", ["shipped", "qwen"])
def test_thirty_candidates_have_labels_of_one_token_as_the_prompt_writes_them(where: str, request: pytest.FixtureRequest) -> None:
    folder = shipped_base("nano") if where == "shipped" else request.getfixturevalue("shared") / "models/qwen2-7b-instruct"
    tok = AutoTokenizer.from_pretrained(folder)
    encoder, titles = Encoder(tok, INDEX), [f"Title number {i}" for i in range(100)]
    answers = encoder.answers(titles)
    assert len(set(answers)) == 100
    assert {len(a) for a in answers} == {1}
    prompt = encoder.prompt(["Bought"], titles, 1)
    assert prompt is not None
    lines = tok.decode(prompt.ids).split("\n")
    for title, (label,) in zip(titles, answers, strict=True):
        assert f"{tok.decode(label)}. {title}" in lines
        written = tok(f"Candidates:\n{tok.decode(label)}. {title}\n", add_special_tokens=False)["input_ids"]
        assert label in written  # the model reads the very token that it answers with


def test_too_many_candidates_are_one_clear_line(tokenizer: PreTrainedTokenizerFast) -> None:
    """The tokenizer has one token a byte, so the 52 letters are all there is."""
    encoder = Encoder(tokenizer, INDEX)
    assert tokenizer.decode([i for (i,) in encoder.answers([str(n) for n in range(52)])]) == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    with pytest.raises(ConfigError, match=r"prompt.style=index: 53 candidates need a label of one token each, and this tokenizer has 52"):
        encoder.answers([str(n) for n in range(53)])


def test_equal_titles_are_listed_once_and_share_their_label(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(tokenizer, INDEX)
    prompt = encoder.prompt([], ["tent", "stove", "tent"], 1)
    assert prompt is not None
    text = tokenizer.decode(prompt.ids)
    assert "\nA. tent\nB. stove\n\n" in text
    assert tokenizer.decode([i for (i,) in encoder.answers(["tent", "stove", "tent"])]) == "ABA"


def listed(text: str) -> dict[str, str]:
    """Return the title of each label in a prompt."""
    lines = text.split("Candidates:\n")[1].split("\n\n")[0].split("\n")
    return {line[0]: line[3:] for line in lines}


def rows_of(tokenizer: PreTrainedTokenizerFast, n: int, seed: int = 42) -> Sequences:
    """N rows of one user whose target always stands second in the stored candidates."""
    titles = [f"t{k:03d}" for k in range(n + 1)]
    data = make_set(titles, list(range(1, n + 1)))
    ids = [f"i{k}" for k in range(n + 1)]
    stored = [[ids[0] if p != 1 else ids[-1], ids[p], "x1", "x2", "x3", "x4"] for p in range(1, n + 1)]
    domain = data.domains["d"]
    domain.titles.update({f"x{k}": f"other {k}" for k in range(1, 5)})
    rows = data.rows.with_columns(candidates=pl.Series(stored))
    return build_sequences(type(data)("d", data.domains, rows), Encoder(tokenizer, INDEX), seed=seed)


def test_the_loss_is_taken_of_the_label_alone_and_the_label_is_the_target(tokenizer: PreTrainedTokenizerFast) -> None:
    out = rows_of(tokenizer, 12)
    for row, (ids, labels) in enumerate(zip(out.input_ids, out.labels, strict=True), start=1):
        assert [label for label in labels if label != IGNORE] == [ids[-1]]
        assert labels[-1] == ids[-1]
        assert listed(tokenizer.decode(ids[:-1]))[tokenizer.decode(ids[-1])] == f"t{row:03d}"
    assert out.counts.tokens_trained == out.counts.rows_trained == 12


def test_places_carry_no_information_and_the_draw_is_seeded(tokenizer: PreTrainedTokenizerFast) -> None:
    one, again, other = (rows_of(tokenizer, 300, seed) for seed in (42, 42, 7))
    assert one.input_ids == again.input_ids
    assert one.input_ids != other.input_ids
    counts = Counter(tokenizer.decode(ids[-1]) for ids in one.input_ids)
    assert set(counts) == set("ABCDEF")
    assert all(25 <= n <= 80 for n in counts.values()), counts  # 50 expected, standard deviation 6.5
