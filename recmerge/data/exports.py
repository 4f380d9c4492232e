"""Write a data set in the formats of other tools that read prompts: LLaMA-Factory and TRL."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from recmerge.data.building import PUBLISHED
from recmerge.data.dataset import ANSWER, Domain, examples
from recmerge.data.prompts import Chat, render_answer, render_listwise, render_published
from recmerge.data.training_set import TrainingSet
from recmerge.names import CANDIDATES, DOMAIN, POSITION, TARGET, TRAIN, USER_ID, VALID

_SLICE = 10_000
# What the chat templates and placeholders of other tools are written with; recmerge itself never reads it in a title.
_CONTROL = re.compile(r"<\|[^\s|<>]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<(?:image|video|audio)>")


@dataclass(frozen=True)
class Question:
    """One rendered training or validation row."""

    chat: Chat
    answer: str

    @property
    def turns(self) -> list[dict[str, str]]:
        """The system's, the user's and the assistant's turn, as chat templates take them."""
        pairs = (("system", self.chat.system), ("user", self.chat.user), ("assistant", self.answer))
        return [{"role": role, "content": content} for role, content in pairs]


@dataclass
class Written:
    """What an export holds.

    Args:
        rows: Written rows, of all splits.
        longest: Characters of the longest row, prompt and answer together; 0 where no prompts are written.
        control: Titles with text that the chat format of another tool may read as more than text.
        renamed: Ids that the format cannot hold as they are.
    """

    rows: int = 0
    longest: int = 0
    control: int = 0
    renamed: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def questions(training_set: TrainingSet, split: str) -> Iterator[Question]:
    """Render rows as texts.

    Args:
        training_set: With its domains.
        split: "train": the training rows in their order; "valid": each domain's validation questions, by user.

    Yields:
        Prompts in the listwise style, or for a published profile in the published one.
    """
    if split == VALID:
        for _, domain in sorted(training_set.domains.items()):
            for example in examples(domain, VALID):
                yield _question(domain, example.history, example.candidates, (example.target,))
        return
    published = ANSWER in training_set.rows.columns
    columns = [DOMAIN, USER_ID, POSITION, CANDIDATES, ANSWER if published else TARGET]
    for part in training_set.rows.select(columns).iter_slices(_SLICE):
        for name, user, position, listed, answer in part.iter_rows():
            domain = training_set.domains[name]
            history = domain.sequences[user][:position]
            yield _question(domain, history, tuple(listed), tuple(answer) if published else (answer,))


def _question(domain: Domain, history: tuple[str, ...], candidates: tuple[str, ...], answer: tuple[str, ...]) -> Question:
    titles = domain.titles
    render = render_published if domain.profile == PUBLISHED else render_listwise
    chat = render([titles[i] for i in history], [titles[i] for i in candidates])
    return Question(chat, render_answer([titles[i] for i in answer]))


def splits_of(training_set: TrainingSet) -> tuple[str, ...]:
    """Return the splits worth exporting: the published profile trains on its validation rows, so it has no other."""
    published = any(d.profile == PUBLISHED for d in training_set.domains.values())
    return (TRAIN,) if published else (TRAIN, VALID)


def export_trl(training_set: TrainingSet, folder: Path) -> Written:
    """Write TRL's conversational prompt-completion rows: train.jsonl and valid.jsonl.

    Source: TRL's documentation, "Dataset formats and types". SFTTrainer trains on the completion alone by default, and cuts rows at
    `max_length` tokens (1,024 by default): set it above the longest row.

    Args:
        training_set: With its domains.
        folder: An existing folder.

    Returns:
        What was written.
    """
    written = _begun(training_set)
    for split in splits_of(training_set):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as f:
            for question in questions(training_set, split):
                _write_line(f, {"prompt": question.turns[:2], "completion": question.turns[2:]}, question, written)
    return written


def export_llamafactory(training_set: TrainingSet, folder: Path) -> Written:
    """Write LLaMA-Factory's sharegpt files, <name>_train.jsonl and <name>_valid.jsonl, and the dataset_info.json that registers them.

    Source: LLaMA-Factory's data/README.md, the OpenAI form of the sharegpt format; WeaveRec's published traindata has the same.
    LLaMA-Factory cuts rows at `cutoff_len` tokens, up to 0.9 at the end of the prompt, where the candidates are: set it above the longest row.

    Args:
        training_set: With its domains.
        folder: An existing folder.

    Returns:
        What was written.
    """
    written, info = _begun(training_set), {}
    for split in splits_of(training_set):
        name = f"{training_set.name}_{split}"
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as f:
            for question in questions(training_set, split):
                _write_line(f, {"messages": question.turns}, question, written)
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
        info[name] = {"file_name": f"{name}.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return written


def _begun(training_set: TrainingSet) -> Written:
    titles = [title for domain in training_set.domains.values() for title in domain.titles.values()]
    return Written(control=sum(_CONTROL.search(title) is not None for title in titles))


def _write_line(file: TextIO, row: object, question: Question, written: Written) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    written.rows += 1
    written.longest = max(written.longest, sum(len(turn["content"]) for turn in question.turns))
