"""Errors that a user meets, each with its exit status.

Messages say what was given, what was expected, and what to do.
"""

import errno
import resource
from typing import Self

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class PipelineError(Exception):
    """Base of the errors that end a run; `status` is the process's exit status."""

    status = 1


class UsageError(PipelineError):
    """The command, its input or its settings are wrong: the user changes the command."""

    status = 2


class BudgetSpent(PipelineError):
    """More records failed than `--max-failures` allows."""

    status = 3


class EnvironmentTrouble(PipelineError):
    """Something around the run is wrong: no server, a refused key, a full disk, an output that cannot be written."""

    status = 4


class MediaError(Exception):
    """One record's media cannot be used. Only that record fails, never the run.

    `kind` is one of `missing`, `unreadable`, `truncated`, `too_large`, `no_frames`, `changed`.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.kind, self.args[0])


class Interrupted(PipelineError):
    """The user asked the run to end (Ctrl-C, SIGTERM)."""

    status = 130


def printable(text: str) -> str:
    r"""Text of others on one line, with `\x1b`, halves of characters and the like escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def too_many_files() -> EnvironmentTrouble:
    """The error for an OSError of TOO_MANY_FILES, which would otherwise look like a broken file or a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return EnvironmentTrouble(
        f"too many open files: this process may open {limit:,}. Raise the limit, for example with `ulimit -n 8192`, "
        "then run the same command again"
    )
