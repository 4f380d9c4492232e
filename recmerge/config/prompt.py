"""How histories and titles become token sequences; shared by train and infer."""

from typing import Literal

from pydantic import Field

from recmerge.config.loader import Settings


class PromptConfig(Settings):
    """Prompt style and limits; an adapter remembers the ones it was trained with."""

    style: Literal["open", "listwise", "index", "published"] = Field(
        "listwise",
        description="open: history only; listwise: history and candidates; index: as listwise, the answer is a candidate's label, one token; "
        "published: WeaveRec's own structure",
    )
    max_length: int = Field(1200, ge=8, description="tokens of prompt, answer and end token together; the oldest history is dropped first")
    max_history: int | None = Field(None, ge=1, description="most recent titles kept; null: all that fit")
    max_title_tokens: int | None = Field(None, ge=1, description="cut longer titles, counted in the manifest; null: titles stay whole")
