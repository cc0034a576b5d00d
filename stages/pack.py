"""`--stage pack`: join items, captions, translations and descriptions by id, write `training`.

    shards of one corpus, or of several one after the other → items of the same content as one → texts that the
    filters let pass → pixels → training → near-duplicates of held-out pictures moved out of split train

An item without any text left has no row. Pixels of an earlier run are used again if the content is the same.
"""

import argparse
import asyncio
import dataclasses
import functools
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.corpus import shards
from pipeline.corpus.schema import TrainingRow
from pipeline.corpus.table import MADE_BY, Table, complete, manifest_hash, shard_name, state_folder
from pipeline.engine.stage import Failure, Outcome, Progress, Row, Run, Say, ShardTask, Stage
from pipeline.errors import EnvironmentTrouble, MediaError, UsageError
from pipeline.hashing import canonical_json, fingerprint, short_hash
from pipeline.media.features import FEATURE_TYPES
from pipeline.media.uri import MediaThreads
from pipeline.options import option, read_options
from pipeline.packing import manifest
from pipeline.packing.contents import TRAIN, Merge, SharedContents, refuse_leaks, shared_contents
from pipeline.packing.filters import Filters, read_filters
from pipeline.packing.manifest import JOINED, NEWER, STORED, recorded_settings
from pipeline.packing.near_duplicates import MOVED, mark_moved, read_listed, thumbnail, write_thumbnails
from pipeline.packing.rows import Source, join_captions, join_descriptions, read_media
from pipeline.storage.files import absolute, local_folder, location
from pipeline.storage.folders import Folders
from stages.captions import FrameOptions
from stages.driver import RunOptions, run_stages, say
from stages.ingest import input_notice

SHARDS_AHEAD = 2  # the second keeps the threads busy while the last items of the first are read


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """What is packed, and what is stored of an item."""

    corpus: tuple[Path, ...] = option(
        (),
        "a corpus to pack; repeat it to join several by the content of their items (default: --output itself)",
        parse=location,
        repeat=True,
        metavar="CORPUS",
    )
    filters: Path | None = option(
        None,
        "YAML of thresholds for translated pairs, see docs/quality.md (default: pairs without a flag)",
        metavar="FILE",
    )
    media: str = option(
        "pixels", "pixels: resized JPEGs; reference: only where the originals lie", choices=("pixels", "reference")
    )
    image_size: int = option(384, "length of the shorter side in pixels; nothing is enlarged", at_least=16)
    feature_type: str = option(
        "float16",
        "numbers that precomputed features are stored as: float16 takes half the space and ends at ±65504",
        choices=FEATURE_TYPES,
    )
    near_duplicates: str = option(
        "move",
        "pictures of split train that are copies of held-out ones, resized, recompressed, mirrored or cropped. move: "
        f"into split {MOVED}, which nothing trains on; keep: only listed in the manifest",
        choices=("move", "keep"),
    )


class CorpusState(NamedTuple):
    """What of a corpus decides the packed rows, as it was when the run began."""

    tables: tuple[str, ...]
    content: str  # hash of the tables
    num_shards: int
    num_items: int


@dataclasses.dataclass(frozen=True)
class Pack(Stage):
    """Settings of the stage, named as the options.

    Attributes:
        corpora: Absolute paths.
        output: Absolute path; may be one of the corpora.
    """

    corpora: tuple[str, ...]
    media: str = "pixels"  # or "reference"
    image_size: int = 384
    frames: int = 8
    feature_type: str = "float16"  # or "float32"
    near_duplicates: str = "move"  # or "keep"
    filters: Filters = dataclasses.field(default_factory=Filters)
    output: str = ""

    name = "pack"
    tables = ("training",)
    parents = JOINED  # those of them that a corpus has
    records_per_item = 1

    @property
    def folders(self) -> list[Path]:
        """The corpora's folders."""
        return [location(corpus) for corpus in self.corpora]

    def settings(self) -> dict[str, Any]:
        """Everything that decides a row, apart from the corpora's tables."""
        corpora = ["." if corpus == self.output else corpus for corpus in self.corpora]
        return recorded_settings(corpora, self.filters, **{name: getattr(self, name) for name in STORED | NEWER})

    @property
    def fingerprint(self) -> str:
        """With several corpora any shard may hold texts of all: a change in one makes every shard anew."""
        contents = {"contents": [state.content for state in self.states]} if len(self.corpora) > 1 else {}
        return fingerprint(self.settings() | contents)

    def keeps(self, settings: dict[str, Any]) -> bool:
        """Pixels, if only the filters differ."""
        return settings | {"filters": None} == self.settings() | {"filters": None}

    @functools.cached_property
    def states(self) -> list[CorpusState]:
        """The state of each corpus when this was first asked for: all shards are made from that, or the run ends."""
        return [_state_of(corpus) for corpus in self.folders]

    def place(self, index: int) -> tuple[int, int]:
        """Numbers of the corpus, and of the shard there, that shard `index` is made from: corpus after corpus."""
        for number, state in enumerate(self.states):
            if index < state.num_shards:
                return number, index
            index -= state.num_shards
        raise IndexError(f"shard {index} is beyond the last corpus")

    def origin(self, corpus: Path, index: int) -> tuple[Path, tuple[str, ...], int]:
        """The shard's corpus, its tables, and the shard's number there."""
        number, shard = self.place(index)
        return self.folders[number], self.states[number].tables, shard

    def made_from(self, corpus: Path) -> dict[str, Path]:
        """The output's own tables by their names, those of other corpora as `NAME/TABLE`."""
        is_own = self.folders == [corpus]
        return {
            table if is_own else f"{home.name}/{table}": home / table
            for home, state in zip(self.folders, self.states, strict=True)
            for table in state.tables
        }

    def plan(self, corpus: Path, say: Say) -> tuple[int, int]:
        """Shards and items of all corpora."""
        return sum(state.num_shards for state in self.states), sum(state.num_items for state in self.states)

    def notice(self, corpus: Path) -> str:
        """What has changed in the inputs of the corpora."""
        return "\n".join(filter(None, (input_notice(home) for home in self.folders)))

    def check(self) -> None:
        """Check that there is something to pack.

        Raises:
            UsageError: A corpus is incomplete or outdated, two corpora have one name, or there are no texts or media.
        """
        names = [corpus.name for corpus in self.folders]
        if len(set(names)) < len(names):
            raise UsageError(f"--corpus: two of {', '.join(self.corpora)} have the same name. Rename one")
        for corpus in self.folders:
            _check_tables(corpus)
        texts = [(corpus, name) for corpus in self.folders for name in _joined_tables(corpus)[1:]]
        if not any(Table(*table).num_rows for table in texts):
            raise UsageError(
                f"{', '.join(self.corpora)}: no captions or descriptions to train on. Run --stage captions, or give "
                "--stage ingest an --input with captions"
            )
        num_items = sum(Table(corpus, "items").num_rows for corpus in self.folders)
        if 0 < num_items == sum(map(manifest.count_without_media, self.folders)):
            raise UsageError(
                f"{', '.join(self.corpora)}: no item has media to train on. Put the pictures or videos where --input "
                "is, and run --stage ingest --overwrite without --allow-missing-media"
            )

    def shared(self, corpus: Path) -> SharedContents:
        """Which items several corpora have; made once, in the state of the output `corpus`."""
        folder = local_folder(state_folder(corpus)) / self.name / "contents"
        return shared_contents(self.folders, folder, self.fingerprint)

    def revise(self, run: Run) -> bool:
        """Have copies of held-out pictures moved out of split train, see `pipeline.packing.near_duplicates`."""
        return self.media != "reference" and mark_moved(run.corpus, run.num_shards, self.near_duplicates == "move")

    def notes(self, corpus: Path) -> dict[str, Any]:
        """What was packed, in numbers.

        Returns:
            `splits`: items, captions and descriptions of each; `dropped`: see `dropped_pairs`;
            `dropped_descriptions`, if there are any; `near_duplicates`: pairs of ids, and the ids of those
            that were moved; `merged`: items that
            became part of another corpus' item; `without_text`: items that have no row because no text is left;
            `without_media`: items that have no row because they were ingested only for their texts; `sources`.

        Raises:
            EnvironmentTrouble: A corpus was changed meanwhile.
        """
        for home, state in zip(self.folders, self.states, strict=True):
            if state != _state_of(home):
                raise EnvironmentTrouble(f"{home} was changed while it was packed. Run the same command again")
        num_shards, num_items = self.plan(corpus, say)
        sidecars = shards.read_sidecars(corpus, self.name, num_shards, Folders())
        paths = [corpus / "training" / shard_name(index, num_shards) for index in range(num_shards)]
        merged = self.shared(corpus).merged if len(self.corpora) > 1 else 0
        rows = sum(sidecar["tables"]["training"]["rows"] for sidecar in sidecars)
        failed = sum(len(sidecar["failures"]) for sidecar in sidecars)
        num_without_media = sum(map(manifest.count_without_media, self.folders))
        dropped = manifest.dropped_descriptions(self.folders, self.filters)
        copies = {name: ids for name, ids in read_listed(corpus).items() if name != "made_from"}
        return {
            "splits": manifest.split_sizes(paths),
            "dropped": manifest.dropped_pairs(self.folders, self.filters),
            **({"dropped_descriptions": dropped} if dropped else {}),
            **({"near_duplicates": copies} if copies["pairs"] else {}),
            "merged": merged,
            "without_text": num_items - merged - rows - failed - num_without_media,
            **({"without_media": num_without_media} if num_without_media else {}),
            "sources": [manifest.describe_source(home) for home in self.folders],
        }

    async def open(self, run: Run, progress: Progress) -> "PackWorker":
        """Open the index of contents, if there are several corpora."""
        is_merged = len(self.corpora) > 1
        merge = Merge(self.folders, await asyncio.to_thread(self.shared, run.corpus)) if is_merged else None
        return PackWorker(self, run.corpus, merge, progress)


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    run, options = read_options(RunOptions, parsed), read_options(PackOptions, parsed)
    output = str(run.corpus)
    stage = Pack(
        corpora=tuple(absolute(str(corpus)) for corpus in options.corpus) or (output,),
        media=options.media,
        image_size=options.image_size,
        frames=read_options(FrameOptions, parsed).frames,
        feature_type=options.feature_type,
        near_duplicates=options.near_duplicates,
        filters=read_filters(options.filters),
        output=output,
    )
    stage.check()  # before there is an output folder

    def open_stages() -> list[Stage]:
        refuse_leaks(stage.folders)
        return [stage]

    return run_stages(run, beam_arguments, open_stages)


class PackWorker:
    """Packs shard by shard; texts are joined and media read in a pool of threads, item by item."""

    def __init__(self, stage: Pack, corpus: Path, merge: Merge | None, progress: Progress):
        self.ahead = SHARDS_AHEAD
        self._stage, self._corpus, self._merge, self._progress = stage, corpus, merge, progress
        self._moved = frozenset(read_listed(corpus)["moved"])
        self._pool = MediaThreads("pack")

    async def shard(self, task: ShardTask) -> list[Outcome]:
        """Pack the items of one shard."""
        loop = asyncio.get_running_loop()
        items = await loop.run_in_executor(self._pool, self._sources, task)
        previous = {item_id: rows["training"][0] for item_id, rows in task.previous.items()}

        async def pack_item(sources: list[Source]) -> Outcome:
            outcome = await loop.run_in_executor(self._pool, self._pack, sources, previous)
            self._progress.counts["items"] += 1
            return outcome

        outcomes = list(await asyncio.gather(*map(pack_item, items)))
        if self._stage.media != "reference":
            rows = [row for outcome in outcomes for row in outcome.rows.get("training", ())]
            thumbnails = await asyncio.gather(*(loop.run_in_executor(self._pool, thumbnail, row) for row in rows))
            write_thumbnails(shards.thumbnails_path(self._corpus, task.index), thumbnails)
        return outcomes

    def _sources(self, task: ShardTask) -> list[list[Source]]:
        if self._merge is None:
            return [[Source("", row, task.joined.get(row["item_id"], {}))] for row in task.rows]
        return self._merge.sources(*self._stage.place(task.index), task.rows, task.joined)

    def _pack(self, sources: list[Source], previous: dict[str, TrainingRow]) -> Outcome:
        if sources and not sources[0].item["sha256"]:
            return Outcome({})  # ingested only for its texts, see `Pack.notes`
        captions = join_captions(sources, self._stage.filters)
        descriptions = join_descriptions(sources, self._stage.filters)
        if not captions and not descriptions:
            return Outcome({})
        item_id = sources[0].item_id
        try:
            media = self._media(sources, previous.get(item_id))
        except MediaError as error:
            return Outcome({}, [Failure(item_id, error.kind, str(error))])
        item = sources[0].item
        columns = {name: item[name] for name in ("split", "media_type", "sha256", "source", "license")}
        row = {"item_id": item_id, **columns, **media, "captions": captions, "descriptions": descriptions}
        if item_id in self._moved and row["split"] == TRAIN:
            row["split"] = MOVED
        return Outcome({"training": [row]})

    def _media(self, sources: list[Source], previous: TrainingRow | None) -> Row:
        """The columns media, num_frames and uri.

        If one corpus' file cannot be read, another's is used: the content is the same.
        """
        stage, item = self._stage, sources[0].item
        uris = list(dict.fromkeys(source.item["uri"] for source in sources))
        if stage.media == "reference":
            return {"media": None, "num_frames": 0, "uri": uris[0]}
        if previous and previous["sha256"] == item["sha256"]:
            uri = previous["uri"] if previous["uri"] in uris else uris[0]
            return {"media": previous["media"], "num_frames": previous["num_frames"], "uri": uri}
        errors = []
        for uri in uris:
            try:
                data, count = read_media(item, uri, stage.image_size, stage.frames, stage.feature_type)
                return {"media": data, "num_frames": count, "uri": uri}
            except MediaError as error:
                errors.append(error)
        raise errors[0]

    async def close(self) -> None:
        """End the threads."""
        self._pool.close()


def _state_of(corpus: Path) -> CorpusState:
    tables = _joined_tables(corpus)
    content = short_hash(canonical_json([manifest_hash(corpus, table) for table in tables]))
    items = Table(corpus, "items")
    return CorpusState(tables, content, items.num_shards, items.num_rows)


def _joined_tables(corpus: Path) -> tuple[str, ...]:
    return tuple(table for table in JOINED if table == "items" or complete(corpus, table))


def _check_tables(corpus: Path) -> None:
    """Check that every table of the corpus is complete, and made from the present tables."""
    for name in JOINED:
        remedy = f"run --stage {MADE_BY[name]} --output {shlex.quote(str(corpus))} again"
        if complete(corpus, name):
            for parent, made_from in Table(corpus, name).manifest["parents"].items():
                if not complete(corpus, parent) or manifest_hash(corpus, parent) != made_from:
                    raise UsageError(f"{corpus}: table {name} was made from another version of {parent}: {remedy}")
        elif name == "items" or (corpus / name).is_dir():
            raise UsageError(f"{corpus} has no complete table of {name}: {remedy}")
