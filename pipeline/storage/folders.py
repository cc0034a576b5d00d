"""Many small files at once: a resumed run asks for the sidecars of all shards, of which there may be 100,000.

files = Folders()
files.read(folder / "part-00017.json")     lists the folder and reads its files; those that follow are in memory
"""

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.storage.files import FileState, file_state, in_parallel, list_files, version, write_file
from pipeline.storage.object_path import ObjectPath

TOGETHER = "together.arrow"  # in a folder of an object store: its small files, as they were when it was written
SCHEMA = pa.schema([("name", pa.string()), ("version", pa.string()), ("data", pa.binary())])
MANY = 500  # files that have changed since, for which it is written anew


class SmallFiles:
    """The contents of small files, and the sizes of others, asked for one by one."""

    def read(self, path: Path) -> bytes | None:
        """The bytes of a small file; None if there is no such file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return path.read_bytes()
        return None

    def state(self, path: Path) -> FileState | None:
        """The state of a file; None if there is no such file."""
        return file_state(path)

    def version(self, path: Path) -> str | None:
        """The version of a file; None if there is no such file. Its folder is not listed."""
        return version(path)


class Folders(SmallFiles):
    """The same for whole folders, each as it was when its first file was asked for."""

    def __init__(self) -> None:
        self.files = functools.cache(list_files)
        self.version = functools.cache(version)  # type: ignore[method-assign]
        self._contents = functools.cache(_read_folder)

    def read(self, path: Path) -> bytes | None:
        """The bytes of a small file. There are only small ones in its folder."""
        return self._contents(path.parent).get(path.name)

    def state(self, path: Path) -> FileState | None:
        """The state of a file."""
        return self.files(path.parent).get(path.name)


def keep_together(folder: Path) -> None:
    """Let the next run find the small files of a folder together, even if this one is killed: in object stores only."""
    if isinstance(folder, ObjectPath):
        _read_folder(folder)


def _read_folder(folder: Path) -> Mapping[str, bytes]:
    """The contents of the files in a folder, by name.

    100,000 files of an object store are a hundred requests to list them, one for those that are kept together, and one
    for each that has changed since.
    """
    if not isinstance(folder, ObjectPath):
        contents = {name: SmallFiles().read(folder / name) for name in list_files(folder)}
        return {name: data for name, data in contents.items() if data is not None}
    present = {name: state.version for name, state in list_files(folder).items() if name != TOGETHER}
    rows: dict[str, tuple[str, bytes]] = {}
    with contextlib.suppress(FileNotFoundError), pa.ipc.open_stream((folder / TOGETHER).read_bytes()) as stream:
        for name, seen, data in zip(*stream.read_all().to_pydict().values(), strict=True):
            if present.get(name) == seen:
                rows[name] = seen, data

    def read(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
            data, seen = (folder / name).read_version()
            rows[name] = seen, data

    changed = sorted(present.keys() - rows.keys())
    in_parallel(read, changed)
    if len(changed) >= MANY:
        listed = [{"name": name, "version": seen, "data": data} for name, (seen, data) in rows.items()]
        with write_file(folder / TOGETHER) as stream, pa.ipc.new_stream(stream, SCHEMA) as table:
            table.write_table(pa.Table.from_pylist(listed, SCHEMA))
    return {name: data for name, (_, data) in rows.items()}
