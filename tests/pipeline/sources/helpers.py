"""Small real pictures, each with its own bytes, and what sources are asked in every test."""

import functools
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import UsageError
from pipeline.media.images import open_media
from pipeline.sources import Source, SourceItem, all_items, open_source


@functools.cache
def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).rotate(number % 360).convert("RGB").save(stream, "JPEG")
    return stream.getvalue() + str(number).encode()  # bytes past the end mark keep it a JPEG, and tell it apart


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def pack(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def listed(*sources: Source) -> dict[str, SourceItem]:
    """Items by id, in order."""
    return {item.item_id: item for item in all_items(sources)}


def content(item: SourceItem) -> bytes:
    with open_media(item.uri) as stream:
        return stream.read()


def texts(item: SourceItem) -> list[str]:
    return [caption.text for caption in item.captions]


def not_taken(source: Source) -> dict[str, str]:
    """By name, the kind of what the account lists. Complete once the items were listed."""
    return {name: reason.kind for reason in source.account if reason.kind for name in reason.names}


def items_and_summary(kind: str, folder, **options) -> tuple[dict[str, SourceItem], str]:
    source = open_source(str(folder), kind, **options)
    return {item.item_id: item for item in source.items()}, source.summary


def refusal(kind: str, folder, **options) -> str:
    with pytest.raises(UsageError) as caught:
        open_source(str(folder), kind, **options)
    return str(caught.value)


def numbered(item: SourceItem, language: str) -> dict[int, str]:
    return {caption.number: caption.text for caption in item.captions if caption.language == language}


def all_captions(item: SourceItem) -> list[tuple]:
    return [(caption.language, caption.origin, caption.number, caption.text) for caption in item.captions]
