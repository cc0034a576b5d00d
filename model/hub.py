"""Find a model that a user names: a folder, or a name on the Hub, without waiting for a Hub that does not answer."""

import difflib
import functools
import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
ANSWER_S = 5.0  # time that the Hub has to answer


def locate_model(name: str, keywords: Sequence[str] = ()) -> str:
    """The folder of a model, with `~` expanded, or its name on the Hub.

    Where the Hub does not answer, this process stays offline from now on and takes models from the Hub's cache.

    Args:
        name: As the user typed it.
        keywords: Names of encoders that are not models, to recognise one that was mistyped.

    Raises:
        ValueError: There is no such model. The message says what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(name, folder)
        return str(folder)
    near = difflib.get_close_matches(name.lower(), keywords, 1, 0.75)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    try:
        cached = isinstance(try_to_load_from_cache(name, CONFIG), str)
    except HFValidationError as error:
        raise ValueError(
            f"{name}: {folder.absolute()} does not exist{guess}. Give a model folder, or a Hub model as OWNER/NAME"
        ) from error
    if near and not cached:
        raise ValueError(f"{name}: there is no such folder{guess}")
    if not constants.HF_HUB_OFFLINE and not _hub_answers():
        constants.HF_HUB_OFFLINE = True
    if constants.HF_HUB_OFFLINE and not cached:
        raise ValueError(
            f"{name}: there is no such folder, the Hub's cache does not have the model, and the Hub cannot be reached "
            f"({constants.ENDPOINT}). Give the folder of a model, or download it first: hf download {name}"
        )
    return name


def _check_folder(name: str, folder: Path) -> None:
    if (folder / CONFIG).is_file():
        return
    if (folder / ADAPTER).is_file():
        base = json.loads((folder / ADAPTER).read_text("utf-8")).get("base_model_name_or_path") or "its base model"
        raise ValueError(
            f"{name} is a folder with only an adapter of {base} ({ADAPTER}): merge it into that model with "
            "merge_and_unload(), save it with save_pretrained(), and give that folder"
        )
    raise ValueError(f"{name} is a folder without {CONFIG}: give the folder of a whole model")


@functools.cache
def _hub_answers() -> bool:
    """Whether the Hub answers at all, asked once: each of its own requests is repeated for ten seconds or more."""
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_S)
    except Exception:  # whatever the HTTP client of this version raises
        return False
    return True
