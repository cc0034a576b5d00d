import pytest

from pipeline.errors import UsageError
from pipeline.sources import Source, SourceItem, open_source


def open_set(kind: str, folder, **options) -> Source:
    return open_source(str(folder), kind, **options)


def items_and_summary(kind: str, folder, **options) -> tuple[dict[str, SourceItem], str]:
    source = open_set(kind, folder, **options)
    return {item.item_id: item for item in source.items()}, source.summary


def refusal(kind: str, folder, **options) -> str:
    with pytest.raises(UsageError) as caught:
        open_set(kind, folder, **options)
    return str(caught.value)


def numbered(item: SourceItem, language: str) -> dict[int, str]:
    return {caption.number: caption.text for caption in item.captions if caption.language == language}


def all_captions(item: SourceItem) -> list[tuple]:
    return [(caption.language, caption.origin, caption.number, caption.text) for caption in item.captions]
