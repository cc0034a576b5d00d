"""Index the media of corpora, so that they can be found: media → vectors → an index folder.

    python stages/index.py --checkpoint RUN|FOLDER|NAME|embedded --data CORPUS… --output INDEX
    python stages/index.py --output INDEX --remove CORPUS/ITEM…

Run again, it brings the index to what the corpora hold by now: what is there is kept, what is new encoded, what is gone
removed. Killed, the same command goes on; with --overwrite it begins again, and the old index answers until the new one
is whole. `embedded` needs no training and no GPU. `accelerate launch` in front of the
program, instead of `python`, encodes on several processes.
"""

import argparse
import contextlib
import functools
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.corpus.table import MANIFEST, manifest_hash
from pipeline.engine.progress import duration
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, short_hash
from stages.data.media import item_frames
from stages.data.samples import ALL, Shards, all_views, check_views
from stages.processes import Parser, accelerated, on_main, run_program
from stages.retrieval.encoders import Space, open_space
from stages.retrieval.index_reader import VectorIndex
from stages.retrieval.index_writer import IndexWriter, writer
from stages.retrieval.keys import Keys
from stages.retrieval.segments import ITEMS
from stages.scoring.embed import Share

PART = 20_000  # items that are encoded, and whose vectors are held in memory, at once
STATES = 50  # that a killed run goes on from, at most: each costs a look at every key of the index


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.remove:
        return remove(options)
    if not options.checkpoint or not options.data:
        raise UsageError(
            "wanted --checkpoint RUN|FOLDER|NAME|embedded and --data CORPUS: what to encode, and with what"
        )
    if options.batch_size < 1:
        raise UsageError(f"--batch-size: got {options.batch_size}, wanted 1 or more")
    accelerator = accelerated("no")
    space = open_space(options.checkpoint)
    space.to(accelerator.device)
    media = Media(named(options.data), options.split, space.slot_views if options.views is None else options.views)
    share = Share(accelerator, options.batch_size)
    origin = {"space": space.told, "split": options.split, "views": list(media.views), "corpora": media.told()}
    with contextlib.ExitStack() as stack:
        made: list[Publisher] = []  # on rank 0 alone
        on_main(lambda: made.append(stack.enter_context(publisher(options, origin, space.width, media))))
        for start in range(0, on_main(lambda: len(made[0].left_L3)), PART):
            part = on_main(functools.partial(lambda start: made[0].part(start), start))
            found = encode(space, media, part, share)
            on_main(functools.partial(lambda part, found: made[0].add(part, found), part, found))
        on_main(lambda: made[0].end())
    accelerator.end_training()
    return 0


def tags(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(tag.strip() for tag in text.split(",") if tag.strip())


class Place(NamedTuple):
    """Where an item is."""

    corpus: str
    shard: int
    row: int


class Media:
    """The items of corpora; media are opened when they are encoded."""

    def __init__(self, corpora: dict[str, Path], split: str | None, views: Sequence[str]):
        self.corpora, self.split = corpora, split
        self.shards = {name: Shards([path]) for name, path in corpora.items()}
        self.views = tuple(views) or (ALL,)
        if views:
            together = Shards(list(corpora.values()))
            check_views(together, "--views", views, all_views(together))

    def told(self) -> list[dict[str, str]]:
        """For the index: names and places of the corpora, and a hash of what they hold."""
        return [
            {"name": name, "path": str(path.absolute()), "training": manifest_hash(path, "training")}
            for name, path in self.corpora.items()
        ]

    def places(self) -> Iterator[tuple[Place, str, str]]:
        """Every item of the split, in order, with its id and the hash of its content."""
        for name, shards in self.shards.items():
            for number in range(len(shards)):
                table = shards.shard(number).select(["item_id", "uri", "split", "media_type", "sha256", "descriptions"])
                for row, item in enumerate(table.to_pylist()):
                    if self.split in (None, item["split"]):
                        yield Place(name, number, row), item["item_id"], self.content(item)

    def content(self, item: dict[str, Any]) -> str:
        """A hash of all that the index keeps of an item, or makes its vectors of."""
        told = [item[name] for name in ("sha256", "uri", "split", "media_type")]
        return short_hash(canonical_json([*told, self.described(item)]))

    def described(self, item: dict[str, Any]) -> list[dict[str, str]]:
        return [told for told in item["descriptions"] if ALL in self.views or told["view"] in self.views]

    def item(self, place: Place) -> tuple[Any, list[dict[str, str]]]:
        """Frames and descriptions."""
        shards = self.shards[place.corpus]
        row = shards.row(place.shard, place.row)
        return item_frames(shards, place.shard, row), self.described(row)

    def record(self, place: Place) -> dict[str, Any]:
        """What the index keeps of the item beside its vectors."""
        table = self.shards[place.corpus].shard(place.shard).slice(place.row, 1)
        row = table.select(["item_id", "uri", "sha256", "split", "media_type", "descriptions"]).to_pylist()[0]
        texts = [{"view": told["view"], "text": told["text"]} for told in self.described(row)]
        told = {"corpus": place.corpus, "content": self.content(row), "texts": texts}
        del row["descriptions"]
        return {**row, **told}


def named(data: Sequence[Path]) -> dict[str, Path]:
    """The corpora by their folders' names, which results tell. Raises UsageError for two of one name."""
    found: dict[str, Path] = {}
    for path in data:
        name = path.absolute().name
        if name in found:
            raise UsageError(
                f"--data {path}: got a second corpus named {name}, wanted distinct names: rename one folder"
            )
        found[name] = path
    return found


@contextlib.contextmanager
def publisher(options: argparse.Namespace, origin: dict[str, Any], width: int, media: Media) -> Iterator["Publisher"]:
    """Holds the index for the whole run: a second one is refused before it encodes anything."""
    fresh = options.overwrite or not (options.output / MANIFEST).exists()
    if not fresh:
        origin = {**origin, "space": same(options.output, VectorIndex.open(options.output).origin, origin)}
    made = {"dtype": options.dtype, "kind": options.kind, "overwrite": options.overwrite}
    with writer(options.output, origin=origin, width=width, **made) as index:
        yield Publisher(options, index, media, None if fresh else VectorIndex.open(options.output))


class Publisher:
    """What rank 0 does: items that have changed are replaced at once, those that are gone are removed at the end.

    `left_L3`: what is to be encoded, as numbers of corpus, shard and row: of ten million items it takes 120 MB. An
    index that is made anew is published when it is whole, others in parts.
    """

    def __init__(self, options: argparse.Namespace, index: IndexWriter, media: Media, there: VectorIndex | None):
        self.options, self.index, self.media, self.names = options, index, media, list(media.corpora)
        records, present_N = (there.records, there.present()) if there else (ITEMS.empty_table(), np.zeros(0, bool))
        self.keys, contents = Keys(records, present_N), records.column("content")
        self.changed_N, gone_N = np.zeros_like(present_N), present_N.copy()
        left, hashes = array("i"), array("q")
        for place, item_id, content in media.places():
            number = self.keys.get((place.corpus, item_id))
            if number is not None:
                if not gone_N[number]:
                    raise twice(place.corpus, item_id)
                gone_N[number] = False
                if contents[number].as_py() == content:
                    continue
                self.changed_N[number] = True
            left.extend((self.names.index(place.corpus), place.shard, place.row))
            hashes.append(hash((place.corpus, item_id)))
        self.left_L3 = np.array(left, np.int32).reshape(-1, 3)
        if not len(self.left_L3) and gone_N.sum() == present_N.sum():
            raise UsageError(f"--data: no item of split {options.split!r}: leave --split out to index all")
        self._check_once(np.array(hashes, np.int64))
        self.gone = [self.keys.key(number) for number in np.flatnonzero(gone_N).tolist()]
        changed = int(self.changed_N.sum())
        kept = int(present_N.sum()) - len(self.gone) - changed
        say(f"{options.output}: {kept:,} items kept, {len(self.gone) + changed:,} removed or changed")
        self.done = self.unpublished = 0
        self.began = time.monotonic()

    def _check_once(self, hashes_L: np.ndarray) -> None:
        """Raises UsageError for an item that is there twice among what is left: before any is encoded."""
        order_L = np.argsort(hashes_L, kind="stable")
        alike = np.flatnonzero(np.diff(hashes_L[order_L]) == 0)
        for first, second in zip(order_L[alike].tolist(), order_L[alike + 1].tolist(), strict=True):
            one, other = (self.media.record(self._place(row)) for row in (first, second))
            if (one["corpus"], one["item_id"]) == (other["corpus"], other["item_id"]):
                raise twice(one["corpus"], one["item_id"])

    def _place(self, left: int) -> Place:
        corpus, shard, row = self.left_L3[left].tolist()
        return Place(self.names[corpus], shard, row)

    def part(self, start: int) -> list[Place]:
        return [self._place(left) for left in range(start, min(start + PART, len(self.left_L3)))]

    def add(self, places: Sequence[Place], encoded: dict[str, np.ndarray]) -> None:
        records = [self.media.record(place) for place in places]
        for key in [(record["corpus"], record["item_id"]) for record in records]:
            number = self.keys.get(key)
            if number is not None and self.changed_N[number]:
                self.index.remove([key])
        self.index.add(records, **encoded)
        self.done, self.unpublished = self.done + len(records), self.unpublished + len(records)
        if self.done < len(self.left_L3):
            seconds_each = (time.monotonic() - self.began) / self.done
            eta = duration(seconds_each * (len(self.left_L3) - self.done))
            say(f"{self.options.output}: {self.done:,} of {len(self.left_L3):,} items encoded, ETA {eta}")
        if not self.options.overwrite and self.unpublished * STATES >= len(self.left_L3):
            self.index.commit()
            self.unpublished = 0

    def end(self) -> None:
        self.index.remove(self.gone)
        self.index.commit()
        there = len(VectorIndex.open(self.options.output))
        say(f"{self.options.output}: {there:,} items, {len(self.left_L3):,} encoded now")
        say(f'next: python stages/search.py --index {self.options.output} "eine Katze"')


def twice(corpus: str, item_id: str) -> UsageError:
    return UsageError(f"--data: item {item_id} of {corpus} is there twice, wanted it once: run --stage pack again")


def same(output: Path, there: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The space of the index that is there: a model may have moved. Raises UsageError where the index was made in
    another way than is asked for.
    """
    for name, told in (("space", "--checkpoint"), ("split", "--split"), ("views", "--views")):
        ours, theirs = (part[name]["fingerprint"] if name == "space" else part[name] for part in (wanted, there))
        if ours != theirs:
            raise UsageError(
                f"--output {output}: was made with {told} {shown(there[name])}, got {shown(wanted[name])}: give the "
                "same, another --output, or --overwrite to make it anew"
            )
    return there["space"]


def shown(value: Any) -> str:
    return f"{value['name']} ({value['fingerprint']})" if isinstance(value, dict) else str(value)


def encode(space: Space, media: Media, places: Sequence[Place], share: Share) -> dict[str, np.ndarray]:
    """Vectors of the items, and of their descriptions by themselves with the item that each is of; on every rank."""
    told: list[tuple[int, str]] = []
    for number, place in enumerate(places):
        told += [(number, text["text"]) for text in media.record(place)["texts"]]
    most = max(np.bincount([number for number, _ in told]).tolist(), default=1)

    def load(rows: list[int]) -> Any:
        frames, descriptions = zip(*(media.item(places[row]) for row in rows), strict=True)
        return frames, [[text["text"] for text in texts] for texts in descriptions]

    def items(loaded: Any) -> tuple[torch.Tensor]:
        frames, descriptions = loaded
        return (torch.from_numpy(space.items(frames, descriptions, most)),)

    def texts(loaded: list[str]) -> tuple[torch.Tensor]:
        return (torch.from_numpy(space.descriptions(loaded)),)

    (rows_NRE,) = share.encode("items", torch.arange(len(places)), range(len(places)), load, items)
    owners_M = np.array([number for number, _ in told], np.int64)
    text_ME = np.zeros((0, space.width), np.float32)
    if told:
        (found,) = share.encode(
            "descriptions",
            torch.arange(len(told)),
            range(len(told)),
            lambda rows: [told[row][1] for row in rows],
            texts,
        )
        text_ME = found.numpy()
    return {"media_NRE": rows_NRE.numpy(), "text_ME": text_ME, "text_owner_M": owners_M}


def remove(options: argparse.Namespace) -> int:
    """By id alone: no model is needed."""
    there = VectorIndex.open(options.output)
    keys = [tuple(key.split("/", 1)) for key in options.remove]
    if bad := [key for key in options.remove if "/" not in key]:
        raise UsageError(f"--remove: got {bad[0]!r}, wanted CORPUS/ITEM as search.py tells it")
    with writer(options.output, origin=there.origin, width=there.width, dtype=there.dtype, kind=there.kind) as index:
        index.remove(keys)
        index.commit()
    say(f"{options.output}: {len(keys):,} removed, {len(VectorIndex.open(options.output)):,} left")
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    made = Parser("index.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = made.add_argument
    add("--checkpoint", help="a run's folder, a model's folder, a name on the Hub, or embedded")
    add("--data", action="append", type=Path, help="a corpus with a table training; may be repeated")
    add("--output", required=True, type=Path, help="folder of the index")
    add("--split", help="that is indexed (all)")
    add("--views", type=tags, help="descriptions that are read and kept (as the run had it, or all)")
    add("--dtype", choices=("float32", "float16", "int8"), default="float16", help="of stored vectors (float16)")
    add("--kind", choices=("auto", "flat", "ivf", "hnsw"), default="auto", help="of the index; auto goes by size")
    add("--batch-size", type=int, default=32, help="items encoded at once on each process (32)")
    add("--remove", nargs="+", metavar="CORPUS/ITEM", help="remove these items and do nothing else")
    add("--overwrite", action="store_true", help="make the index anew")
    return made


if __name__ == "__main__":
    sys.exit(run_program(main))
