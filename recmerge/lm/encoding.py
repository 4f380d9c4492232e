"""From titles to token ids: prompt, answer and end token always whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from jinja2 import TemplateError

from recmerge.data.prompts import (
    PUBLISHED_WORDING,
    Chat,
    Wording,
    render_answer,
    render_index,
    render_listwise,
    render_published,
)
from recmerge.errors import ArtifactError
from recmerge.lm.labels import Label, first_labels, one_token_labels

Style = Literal["open", "listwise", "index", "published"]
MARK = "\ue000"  # private-use character: where text goes in a rendered chat


@dataclass(frozen=True)
class PromptSettings:
    """How histories become prompts; stored beside an adapter, so that it is asked as it was taught.

    Args:
        style: open (history only), listwise (history and candidates), index (as listwise, answered by a label) or published (WeaveRec's own).
        max_length: Tokens of prompt, answer and end token together, at most.
        max_history: Most recent titles kept; None keeps all that fit.
        max_title_tokens: Longer titles are cut to this many tokens; None keeps titles whole.
    """

    style: Style = "listwise"
    max_length: int = 1200
    max_history: int | None = None
    max_title_tokens: int | None = None


@dataclass(frozen=True)
class Encoded:
    """One prompt.

    Args:
        ids: Token ids.
        n_history: Titles of the history that it holds.
        n_dropped: Oldest titles left out because of the limits.
    """

    ids: tuple[int, ...]
    n_history: int
    n_dropped: int


@dataclass
class Encoder:
    """Turns titles into tokens with one tokenizer.

    Prompt and title are tokenised apart, so a score's tokens never depend on what stands before them;
    text from data is encoded without special tokens, so no title can open a chat turn or end a text.

    Args:
        tokenizer: A Hugging Face tokenizer with an end token.
        settings: Style and limits.
        wording: The words of the published style.
    """

    tokenizer: Any
    settings: PromptSettings
    wording: Wording = PUBLISHED_WORDING
    titles_cut: int = 0
    _titles: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ArtifactError("the tokenizer has no end token", fix="use a base model whose tokenizer defines eos_token")

    @property
    def end_id(self) -> int:
        """The id that ends a title."""
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def start_ids(self) -> tuple[int, ...]:
        """What an open sequence begins with: the tokenizer's start or document token, if it has one."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.pad_token_id):
            if token is not None and token != self.end_id:
                return (int(token),)
        return ()

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that text from data must never become."""
        ids = set(self.tokenizer.all_special_ids) | {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        known = {self.end_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id}
        return frozenset(ids - ({self.tokenizer.unk_token_id} - known))  # text may hold unknown pieces, unless that token has another office too

    def plain(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encode texts from data; control tokens written in them stay text.

        Args:
            texts: Any texts.

        Returns:
            The ids of each.

        Raises:
            ArtifactError: The tokenizer turns text into control tokens all the same.
        """
        rows = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False)["input_ids"]
        for text, row in zip(texts, rows, strict=True):
            if not self.control_ids.isdisjoint(row):
                raise ArtifactError(
                    f"the tokenizer reads a control token in the text '{text[:60]}'", fix="use a fast tokenizer, which can split special tokens"
                )
        return [tuple(row) for row in rows]

    def learn(self, titles: Sequence[str]) -> None:
        """Encode titles in one batch, ahead of their use."""
        new = sorted(set(titles) - self._titles.keys())
        limit = self.settings.max_title_tokens
        for title, ids in zip(new, self.plain(new) if new else [], strict=True):
            if limit is not None and len(ids) > limit:
                self.titles_cut += 1
                ids = ids[:limit]
            self._titles[title] = ids

    def title(self, title: str) -> tuple[int, ...]:
        """Return a title's ids, without end token."""
        if title not in self._titles:
            self.learn([title])
        return self._titles[title]

    def answer(self, *titles: str) -> tuple[int, ...]:
        """Return an answer's ids with the end token: one title, or several as published."""
        ids = self.title(titles[0]) if len(titles) == 1 else self.plain([render_answer(titles)])[0]
        return (*ids, self.end_id)

    def answers(self, candidates: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return what names each candidate in an answer: its title and the end token; in the index style its label alone.

        Args:
            candidates: Titles, in the order in which the prompt lists them.

        Returns:
            The ids for each; equal titles have equal ids.
        """
        if self.settings.style != "index":
            return tuple(self.answer(title) for title in candidates)
        label_of = self._label_of(candidates)
        return tuple((label_of[title][1],) for title in candidates)

    def _label_of(self, candidates: Sequence[str]) -> dict[str, Label]:
        """Return the label of each different title."""
        listed = list(dict.fromkeys(candidates))
        return dict(zip(listed, first_labels(self._labels, len(listed)), strict=True))

    @cached_property
    def _labels(self) -> tuple[Label, ...]:
        return one_token_labels(self.plain, self.tokenizer.unk_token_id)

    def prompt(self, history: Sequence[str], candidates: Sequence[str], reserve: int) -> Encoded | None:
        """Encode a prompt, leaving out the oldest titles until it fits.

        Args:
            history: Titles, oldest first.
            candidates: Titles; not read by the open style.
            reserve: Tokens kept free for the answer and end token.

        Returns:
            The prompt, or None where it does not fit even without a history.
        """
        return self.prompts([(history, candidates, reserve)])[0]

    def prompts(self, asked: Sequence[tuple[Sequence[str], Sequence[str], int]]) -> list[Encoded | None]:
        """Encode many prompts at once, on all cores; see `prompt`.

        Args:
            asked: B histories, candidates and reserves.

        Returns:
            What `prompt` returns for each.
        """
        rooms = [self.settings.max_length - reserve for _, _, reserve in asked]
        newest = [self._newest(history) for history, _, _ in asked]
        if self.settings.style == "open":
            found = [self._open(kept, room) for kept, room in zip(newest, rooms, strict=True)]
        else:
            listed = [candidates for _, candidates, _ in asked]
            whole = self._chats(list(zip(newest, listed, strict=True)))
            found = [
                (ids, len(kept)) if len(ids) <= room else self._shorter(kept, candidates, room)
                for ids, kept, candidates, room in zip(whole, newest, listed, rooms, strict=True)
            ]
        lengths = [len(history) for history, _, _ in asked]
        return [one and Encoded(tuple(one[0]), one[1], length - one[1]) for one, length in zip(found, lengths, strict=True)]

    def _newest(self, history: Sequence[str]) -> list[str]:
        limit = self.settings.max_history
        return list(history if limit is None else history[-limit:])

    def _open(self, history: list[str], room: int) -> tuple[list[int], int] | None:
        """Titles one after another, each with its end token, as many of the newest as fit."""
        if len(self.start_ids) > room:
            return None
        used = len(self.start_ids)
        kept: list[tuple[int, ...]] = []
        for title in reversed(history):
            ids = (*self.title(title), self.end_id)
            if used + len(ids) > room:
                break
            used += len(ids)
            kept.append(ids)
        if not self.start_ids and not kept:
            return None  # nothing to condition on
        return [*self.start_ids, *(i for ids in reversed(kept) for i in ids)], len(kept)

    def _shorter(self, history: list[str], candidates: Sequence[str], room: int) -> tuple[list[int], int] | None:
        """The longest suffix of the history, not the whole, whose chat fits, found by bisection."""
        best, low, high = None, 0, len(history) - 1
        while low <= high:
            middle = (low + high) // 2
            ids = self._chats([(history[len(history) - middle :], candidates)])[0]
            if len(ids) <= room:
                best, low = (ids, middle), middle + 1
            else:
                high = middle - 1
        return best

    def _chats(self, asked: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[list[int]]:
        """Encode the whole chat of each history and its candidates."""
        chats = [self._chat_of(history, candidates) for history, candidates in asked]
        users = self.plain([chat.user for chat in chats]) if chats else []
        frames = [self.frame(chat.system) for chat in chats]
        return [[*before, *user, *after] for (before, after), user in zip(frames, users, strict=True)]

    def _chat_of(self, history: Sequence[str], candidates: Sequence[str]) -> Chat:
        """Render a chat of this style."""
        if self.settings.style == "index":
            label_of = self._label_of(candidates)
            return render_index(history, list(label_of), [label for label, _ in label_of.values()])
        if self.settings.style == "listwise":
            return render_listwise(history, candidates)
        return render_published(history, candidates, self.wording)

    def frame(self, system: str) -> tuple[list[int], list[int]]:
        """Return what stands around a user's text: what the chat template puts there, plain lines where there is no template.

        Args:
            system: The instruction that goes before.

        Returns:
            The ids before it and behind it.
        """
        if system not in self._frames:
            if self.tokenizer.chat_template:
                before, _, after = self._chat_text(system).partition(MARK)
            else:
                start = self.tokenizer.bos_token or ""
                before, after = f"{start}{system}\n\n", "\n\nAnswer:"
            pieces = self.tokenizer([before, after], add_special_tokens=False, return_attention_mask=False)["input_ids"]
            self._frames[system] = (pieces[0], pieces[1])
        return self._frames[system]

    def _chat_text(self, system: str) -> str:
        """Render a chat with a mark where the user's text goes; where a template knows no system, the system's text stands before the user's."""
        asked = {"role": "user", "content": MARK}
        for turns in ([{"role": "system", "content": system}, asked], [{**asked, "content": f"{system}\n\n{MARK}"}]):
            try:
                return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
            except TemplateError as error:
                refused = error
        raise ArtifactError(f"the tokenizer's chat template cannot be used: {refused}", fix="mend chat_template in the base's folder")

    @cached_property
    def _frames(self) -> dict[str, tuple[list[int], list[int]]]:
        return {}
