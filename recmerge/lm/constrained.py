"""Generation that can only write candidates: greedy or beam search over the prefix tree of a user's titles."""

from collections.abc import Sequence
from typing import Any

import torch

from recmerge.data.candidates import ANSWER_TITLES
from recmerge.data.prompts import SEPARATOR
from recmerge.lm.encoding import Encoder
from recmerge.lm.generation import plain_options

# What has been written so far: the numbers of the titles that are done, and the tokens of the one begun.
_State = tuple[tuple[int, ...], tuple[int, ...]]


class Choices:
    """The answers that one user's candidates allow: a title and the end token; in the published style five titles, none twice, joined by `||`.

    Titles and separator are tokenised apart, as in scoring. Titles of equal tokens are one title. Where a title is the
    beginning of another, the model decides whether to end or to go on.

    Args:
        titles: At least one.
        encoder: Tokenizer and style.
    """

    def __init__(self, titles: Sequence[str], encoder: Encoder) -> None:
        grouped: dict[tuple[int, ...], list[str]] = {}
        for title in dict.fromkeys(titles):
            grouped.setdefault(encoder.title(title), []).append(title)
        self.titles = [tuple(alike) for alike in grouped.values()]
        self.end_id = encoder.end_id
        self.is_list = encoder.settings.style == "published"
        self._n = min(len(grouped), ANSWER_TITLES) if self.is_list else 1
        separator = encoder.plain([SEPARATOR])[0] if self._n > 1 else ()
        self._first = {ids: number for number, ids in enumerate(grouped)}
        self._later = {(*separator, *ids): number for ids, number in self._first.items()}
        self._begun = [_Beginnings(self._first), _Beginnings(self._later)]
        self._states: dict[tuple[int, ...], list[_State]] = {(): [((), ())]}
        sizes = sorted(map(len, self._first), reverse=True)[: self._n]
        self.longest = sum(sizes) + (self._n - 1) * len(separator) + 1

    def allowed(self, written: Sequence[int]) -> list[int]:
        """Return the ids that may follow; of a finished answer the end token again, as padding."""
        found: set[int] = set()
        for done, part in self._after(tuple(written)):
            found |= self._begun[bool(done)].next_of(part, done)
            if (number := self._done(done, part)) is not None:
                found |= {self.end_id} if len(done) + 1 == self._n else self._begun[1].next_of((), (*done, number))
        return sorted(found) or [self.end_id]

    def named(self, written: Sequence[Sequence[int]]) -> list[tuple[str, ...]]:
        """Return the titles that answers name, best first.

        Args:
            written: The beams' tokens, best first, without end token.

        Returns:
            Per place the titles that stand there: several where their tokens are equal.
        """
        numbers = [self.read(ids) or () for ids in (written[:1] if self.is_list else written)]
        return [self.titles[number] for number in dict.fromkeys(number for answer in numbers for number in answer)]

    def read(self, written: Sequence[int]) -> tuple[int, ...] | None:
        """Return the numbers of an answer's titles, or None where it is no whole answer."""
        for done, part in self._after(tuple(written)):
            number = self._done(done, part)
            if number is not None and len(done) + 1 == self._n:
                return (*done, number)
        return None

    def _done(self, done: tuple[int, ...], part: tuple[int, ...]) -> int | None:
        """Return the number of the title that a part is, if it is a whole one."""
        number = (self._later if done else self._first).get(part)
        return None if number in done else number

    def _after(self, written: tuple[int, ...]) -> list[_State]:
        """Return every way to read what is written; a title may hold the separator."""
        if written not in self._states:
            token, found = written[-1], []
            for done, part in self._after(written[:-1]):
                if token in self._begun[bool(done)].next_of(part, done):
                    found.append((done, (*part, token)))
                number = self._done(done, part)
                if number is not None and len(done) + 1 < self._n and token in self._begun[1].next_of((), (*done, number)):
                    found.append(((*done, number), (token,)))
            self._states[written] = found
        return self._states[written]


class _Beginnings:
    """Every beginning of some titles: which tokens follow, and to which titles they lead."""

    def __init__(self, titles: dict[tuple[int, ...], int]) -> None:
        self._next: dict[tuple[int, ...], dict[int, set[int]]] = {}
        for ids, number in titles.items():
            for at, token in enumerate(ids):
                self._next.setdefault(ids[:at], {}).setdefault(token, set()).add(number)

    def next_of(self, part: tuple[int, ...], without: Sequence[int]) -> set[int]:
        """Return the tokens that may follow a beginning, on the way to another title than some."""
        return {token for token, numbers in self._next.get(part, {}).items() if not numbers.issubset(without)}


@torch.inference_mode()
def generate_choices(model: Any, prompts: Sequence[Sequence[int]], choices: Sequence[Choices], beams: int) -> list[list[list[int]]]:
    """Search the likeliest answers that are allowed.

    A beam's score is the sum of its tokens' log-probabilities over the whole vocabulary, whatever its length, so with as many beams as
    titles the order is that of scoring.

    Args:
        model: A causal language model or a peft model on one.
        prompts: Token ids; padded on the left here.
        choices: What each may be answered with.
        beams: 1 is greedy.

    Returns:
        Per prompt the tokens of different answers, best first: one, or up to `beams`.
    """
    longest, end = max(map(len, prompts)), choices[0].end_id
    device = next(model.parameters()).device
    ids = torch.tensor([[end] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)

    def allowed(row: int, sent: torch.Tensor) -> list[int]:
        written = sent[longest:].tolist()
        return [end] if end in written else choices[row].allowed(written)

    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max(choice.longest for choice in choices),
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=allowed,
        pad_token_id=end,
        eos_token_id=end,
        **plain_options(),
    )
    answers: list[list[list[int]]] = [[] for _ in prompts]
    for at, sequence in enumerate(found[:, longest:].tolist()):
        answer, known = sequence[: sequence.index(end)], answers[at // beams]
        # where there are fewer titles than beams, the rest repeats them or is not whole
        if answer not in known and choices[at // beams].read(answer) is not None:
            known.append(answer)
    return answers
