"""`--translator given`: translations that came with the captions, of origin `mt`, measured as our own are.

The caption `ITEM#de#3` of origin `mt` is taken for the German of `ITEM#en#3`. No model is asked.
"""

import dataclasses
from typing import Any

from pipeline.engine.stage import Rows

GIVEN_ORIGIN = "mt"


@dataclasses.dataclass(frozen=True)
class GivenTranslator:
    """Stands for whoever translated them: who that was, the sources do not say."""

    license: str = ""

    name = "given"
    revision = ""

    @property
    def decoding(self) -> dict[str, Any]:
        return {"engine": "given"}


def translated_id(caption_id: str, item_id: str, language: str) -> str:
    """The id that a caption's translation into `language` has in table `captions`: the same number.

    >>> translated_id("cat.jpg#en#3", "cat.jpg", "de")
    'cat.jpg#de#3'
    """
    return f"{item_id}#{language}#{caption_id.rpartition('#')[2]}"


def given_texts(captions: Rows) -> dict[str, str]:
    """By caption_id, the captions that others translated."""
    return {row["caption_id"]: row["text"] for row in captions if row["origin"] == GIVEN_ORIGIN}
