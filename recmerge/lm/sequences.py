"""Training sequences: token ids and labels, with what was trimmed or dropped counted."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.draws import combine, text_key
from recmerge.data.training_set import TrainingSet
from recmerge.errors import DataError
from recmerge.lm.encoding import Encoder

IGNORE = -100  # a label that no loss is taken of
_PROMPTS = 256  # encoded together, on all cores


@dataclass
class SequenceCounts:
    """What became of the rows.

    Args:
        rows: Rows asked for; one row is one predicted answer.
        rows_trained: Rows whose answer is trained on.
        rows_trimmed: Of these, rows that lost oldest history to the limits.
        rows_dropped: Rows that do not fit even without a history.
        rows_unread: Rows that so few steps never come to.
        sequences: Sequences made of them.
        tokens: Tokens of all sequences.
        tokens_trained: Tokens that a loss is taken of.
        titles_cut: Different titles cut to max_title_tokens.
    """

    rows: int = 0
    rows_trained: int = 0
    rows_trimmed: int = 0
    rows_dropped: int = 0
    rows_unread: int = 0
    sequences: int = 0
    tokens: int = 0
    tokens_trained: int = 0
    titles_cut: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


@dataclass
class Sequences:
    """Model-ready training sequences.

    Args:
        input_ids: One list of token ids per sequence.
        labels: Equal lengths; -100 where no loss is taken.
        counts: What became of the rows.
    """

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    counts: SequenceCounts = field(default_factory=SequenceCounts)

    def add(self, ids: list[int], labels: list[int]) -> None:
        """Add one sequence."""
        self.input_ids.append(ids)
        self.labels.append(labels)
        self.counts.sequences += 1
        self.counts.tokens += len(ids)
        self.counts.tokens_trained += sum(label != IGNORE for label in labels)


def build_sequences(
    data: TrainingSet, encoder: Encoder, max_rows: int | None = None, *, enough: int | None = None, seed: int = 42, advance: Callable[[], None] = lambda: None
) -> Sequences:
    """Encode a training set.

    `open`: one sequence holds a user's history once and predicts every sampled title in it.
    Other styles: one sequence per row; the index style puts each row's candidates into an order of its own, so that no place is more often right.
    A prompt that lists candidates costs milliseconds, so no more of them are made than are trained on.

    Args:
        data: Rows and the domains they come from.
        encoder: Tokenizer and limits.
        max_rows: Use the first rows only; None uses all.
        enough: Sequences of one row after which to stop, which begin at a row drawn by the seed; None: all rows.
        seed: Of that row, and of the candidates' order in the index style.
        advance: Is called for each sequence of one row.

    Returns:
        The sequences and counts.

    Raises:
        DataError: Not one row can be trained on.
    """
    rows = data.rows if max_rows is None else data.rows.head(max_rows)
    encoder.learn([title for domain in data.domains.values() for title in domain.titles.values()])
    sequences = Sequences()
    sequences.counts.rows = rows.height
    if encoder.settings.style == "open":
        _open_sequences(data, rows, encoder, sequences)
    else:
        first = int(text_key("rows", seed) % np.uint64(rows.height)) if enough is not None and enough < rows.height else 0
        in_turn = pl.concat([rows[first:], rows[:first]])  # they are in a drawn order, so any stretch of them is a fair sample
        _row_sequences(data, in_turn, encoder, sequences, seed, enough, advance)
    sequences.counts.titles_cut = encoder.titles_cut
    if not sequences.input_ids:
        raise DataError(
            f"none of the {rows.height} training rows of '{data.name}' fits into max_length {encoder.settings.max_length} tokens",
            fix="raise prompt.max_length, or set prompt.max_title_tokens",
        )
    return sequences


def _row_sequences(data: TrainingSet, rows: pl.DataFrame, encoder: Encoder, out: Sequences, seed: int, enough: int | None, advance: Callable[[], None]) -> None:
    for part in rows.iter_slices(_PROMPTS):
        asked = [_row_question(row, data, encoder, seed) for row in part.iter_rows(named=True)]
        for (answer, _), prompt in zip(asked, encoder.prompts([question for _, question in asked]), strict=True):
            if out.counts.sequences == enough:
                out.counts.rows_unread = rows.height - out.counts.rows_trained - out.counts.rows_dropped
                return
            if prompt is None:
                out.counts.rows_dropped += 1
                continue
            advance()
            out.counts.rows_trained += 1
            out.counts.rows_trimmed += prompt.n_dropped > 0
            out.add([*prompt.ids, *answer], [IGNORE] * len(prompt.ids) + list(answer))


def _row_question(row: dict[str, Any], data: TrainingSet, encoder: Encoder, seed: int) -> tuple[tuple[int, ...], tuple[list[str], list[str], int]]:
    """Return a row's answer in tokens, and its prompt's history, candidates and reserve."""
    style, domain = encoder.settings.style, data.domains[row["domain"]]
    titles = domain.titles
    listed = _shuffled(row, seed) if style == "index" else row["candidates"]
    candidates = [titles[i] for i in listed]
    if style == "index":
        answer = encoder.answers(candidates)[listed.index(row["target"])]
    else:
        answer = encoder.answer(*(titles[i] for i in (row["answer"] if "answer" in row and style == "published" else [row["target"]])))
    return answer, ([titles[i] for i in domain.sequences[row["user_id"]][: row["position"]]], candidates, len(answer))


def _shuffled(row: dict[str, Any], seed: int) -> list[str]:
    """Return a row's candidates in an order drawn for this row alone."""
    key = text_key("labels", row["domain"], row["user_id"], row["position"], seed)
    order = np.argsort(combine(np.array([key]), np.arange(len(row["candidates"]))), kind="stable")
    return [row["candidates"][place] for place in order]


def _open_sequences(data: TrainingSet, rows: pl.DataFrame, encoder: Encoder, out: Sequences) -> None:
    wanted: dict[tuple[str, str], set[int]] = defaultdict(set)
    for domain_name, user, position in rows.select("domain", "user_id", "position").iter_rows():
        wanted[domain_name, user].add(position)
    for (domain_name, user), positions in wanted.items():
        domain = data.domains[domain_name]
        titles = [(*encoder.title(domain.titles[i]), encoder.end_id) for i in domain.sequences[user][: max(positions) + 1]]
        _windows(titles, positions, encoder, out)


def _windows(titles: list[tuple[int, ...]], positions: set[int], encoder: Encoder, out: Sequences) -> None:
    """Cut one user's titles into overlapping windows so that each sampled title is predicted once.

    A later window begins with context: half of max_history, or half of the tokens, whichever is less; one title at least where nothing else begins it.
    """
    limit = encoder.settings.max_length - len(encoder.start_ids)
    most = len(titles) if encoder.settings.max_history is None else encoder.settings.max_history + 1
    start = predicted = 0  # first title of the window; titles before `predicted` are done with
    while predicted < len(titles):
        end, used = start, 0
        while end < len(titles) and end - start < most and used + len(titles[end]) <= limit:
            used += len(titles[end])
            end += 1
        if end <= predicted:  # the next title does not fit behind its context
            if start == predicted:  # nor alone
                out.counts.rows_dropped += predicted in positions
                predicted += 1
            start += 1
            continue
        chosen = {p for p in positions if predicted <= p < end and (p > start or encoder.start_ids)}
        out.counts.rows_dropped += len([p for p in positions if predicted <= p < end]) - len(chosen)
        if chosen:
            ids, labels = list(encoder.start_ids), [IGNORE] * len(encoder.start_ids)
            for p in range(start, max(chosen) + 1):
                ids += titles[p]
                labels += titles[p] if p in chosen else [IGNORE] * len(titles[p])
            out.add(ids, labels)
            out.counts.rows_trained += len(chosen)
            out.counts.rows_trimmed += len(chosen) if start else 0
        predicted = end
        start = _context_start(titles, start, end, limit // 2, (most - 1) // 2, least=0 if encoder.start_ids else 1)


def _context_start(titles: list[tuple[int, ...]], start: int, end: int, tokens: int, count: int, least: int) -> int:
    """Return where the next window begins: at most `count` titles and `tokens` tokens before `end`, but not fewer than `least` titles."""
    first, used = end, 0
    while first - 1 > start and (end - first < least or (end - first < count and used + len(titles[first - 1]) <= tokens)):
        first -= 1
        used += len(titles[first])
    return first
