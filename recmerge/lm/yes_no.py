"""The question whether a title is bought next, as token ids; Yes and No answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from recmerge.data.prompts import BULLET, NO, YES, render_yes_no
from recmerge.errors import ArtifactError
from recmerge.lm.encoding import MARK, Encoder


@dataclass
class YesNoEncoder:
    """Asks of titles, in tokens, whether they are bought next.

    In the open style there are no words, only titles with an end token behind each; all other styles have one wording.

    Args:
        encoder: Tokenizer, style and limits.
    """

    encoder: Encoder

    def question(self, history: Sequence[Sequence[int]], reserve: int) -> tuple[int, ...]:
        """Encode the question up to where the title in question goes, leaving out the oldest titles until it fits.

        Args:
            history: Ids of titles, see `Encoder.title`, oldest first.
            reserve: Tokens kept free for the title, `ending` and the answer.

        Returns:
            Token ids; the question with no history where not even one title fits.
        """
        before, after, left, right = self._frame
        settings = self.encoder.settings
        room = settings.max_length - reserve - len(before) - len(after)
        kept: list[int] = []
        for title in reversed(history if settings.max_history is None else history[-settings.max_history :]):
            line = [*left, *title, *right]
            if len(kept) + len(line) > room:
                break
            kept = line + kept
        return (*before, *kept, *after)

    @cached_property
    def ending(self) -> tuple[int, ...]:
        """Ids between the title in question and the answer."""
        if self.encoder.settings.style == "open":
            return (self.encoder.end_id,)
        return tuple(self.encoder.frame(render_yes_no([]).system)[1])

    @cached_property
    def answers(self) -> tuple[int, int]:
        """The first token of Yes and of No.

        Returns:
            Their ids.

        Raises:
            ArtifactError: They begin alike.
        """
        yes, no = (ids[0] for ids in self.encoder.plain([YES, NO]))
        if yes == no:
            raise ArtifactError(f"the tokenizer begins '{YES}' and '{NO}' with the same token", fix="use another base model")
        return yes, no

    @cached_property
    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """What stands before the history and behind it, and around each of its titles."""
        if self.encoder.settings.style == "open":
            return self.encoder.start_ids, (), (), (self.encoder.end_id,)
        chat = render_yes_no([MARK])
        line = f"{BULLET}{MARK}\n"
        before, _, after = chat.user.partition(line)
        pieces = self.encoder.plain([before, after, *line.split(MARK)])
        return (*self.encoder.frame(chat.system)[0], *pieces[0]), pieces[1], pieces[2], pieces[3]
