"""Find a model that a user names: a folder, or a name on the Hub, without waiting for a Hub that does not answer."""

import contextlib
import difflib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import platformdirs
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, RepositoryNotFoundError

CONFIG, MODULES, ADAPTER = "config.json", "modules.json", "adapter_config.json"  # modules: of Sentence Transformers
OPEN_CLIP = "open_clip_config.json"
WEIGHTS = ("*.safetensors*", "*.bin*", "*.pt", "*.h5", "*.msgpack", "*.onnx")
ANSWER_S = 5.0  # time that the Hub has to answer


def locate_model(name: str, keywords: Sequence[str] = ()) -> str:
    """The folder of a model, with `~` expanded, or its name on the Hub; an adapter is merged into its base model.

    Where the Hub does not answer, this process stays offline from now on and takes models from the Hub's cache.

    Args:
        name: As the user typed it.
        keywords: Names of encoders that are not models, to recognise one that was mistyped.

    Raises:
        ValueError: There is no such model. The message says what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _whole_model(name, folder, [path.name for path in folder.iterdir()])
    near = difflib.get_close_matches(name.lower(), keywords, 1, 0.75)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    try:
        cached = isinstance(hf.try_to_load_from_cache(name, CONFIG), str)
    except HFValidationError as error:
        raise ValueError(
            f"{name}: {folder.absolute()} does not exist{guess}. Give a model folder, or a Hub model as OWNER/NAME"
        ) from error
    if near and not cached:
        raise ValueError(f"{name}: there is no such folder{guess}")
    if not constants.HF_HUB_OFFLINE and not _hub_answers():
        constants.HF_HUB_OFFLINE = True
    if cached:
        return name
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{name}: there is no such folder, the Hub's cache does not have the model, and the Hub cannot be reached "
            f"({constants.ENDPOINT}). Give the folder of a model, or download it first: hf download {name}"
        )
    try:
        hf.hf_hub_download(name, CONFIG)
    except EntryNotFoundError:
        files = hf.list_repo_files(name)
        return _whole_model(name, Path(hf.snapshot_download(name) if ADAPTER in files else name), files)
    except RepositoryNotFoundError as error:
        reason = "there is no such folder, nor such a model on the Hub: it may be private, or have another name now"
        if isinstance(error, GatedRepoError):
            reason = f"the model is gated: accept its terms at {constants.ENDPOINT}/{name}"
        raise ValueError(f"{name}: {reason}. `hf auth login` or $HF_TOKEN sets who you are") from error
    return name


def _whole_model(name: str, folder: Path, files: Collection[str]) -> str:
    if CONFIG in files or MODULES in files:
        return str(folder)
    if ADAPTER in files:
        return str(merge_adapter(name, folder))
    if OPEN_CLIP in files:
        raise ValueError(f"{name} is a model of open_clip, which only scoring and search read, as hf-hub:OWNER/NAME")
    raise ValueError(f"{name} is without {CONFIG}: give a whole model")


def merge_adapter(name: str, folder: Path) -> Path:
    """Merge an adapter of `peft`, such as LoRA, into its base model; the folder of the result is in the user's cache.

    Raises:
        ValueError: The package is missing, or the adapter does not fit its base model.
    """
    try:
        from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict
    except ImportError as error:
        raise ValueError(f"{name} is an adapter, which needs peft. Install it: pip install 'leccr[lora]'") from error
    from transformers import AutoModel

    config = PeftConfig.from_pretrained(str(folder))
    base = locate_model(str(config.base_model_name_or_path))
    source = base if Path(base).is_dir() else hf.snapshot_download(base)
    contents = b"".join(path.read_bytes() for path in sorted(folder.glob("adapter_*")))
    home = platformdirs.user_cache_path("leccr", appauthor=False) / "merged"
    made_from = f"{source} {max(path.stat().st_mtime_ns for path in Path(source).iterdir())}"
    merged = home / hashlib.sha256(made_from.encode() + contents).hexdigest()[:20]
    if merged.exists():
        return merged
    model = get_peft_model(AutoModel.from_pretrained(source), config)
    loaded: Any = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    if wrong := [*loaded.unexpected_keys, *(key for key in loaded.missing_keys if "lora_" in key)]:
        raise ValueError(f"{name} does not fit its base model {config.base_model_name_or_path} ({wrong[0]} …)")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as temporary:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*WEIGHTS), dirs_exist_ok=True)
        model.merge_and_unload().save_pretrained(temporary)
        with contextlib.suppress(OSError):  # another process was faster
            Path(temporary).rename(merged)
    return merged


@functools.cache
def _hub_answers() -> bool:
    """Whether the Hub answers at all, asked once: each of its own requests is repeated for ten seconds or more."""
    try:
        hf.get_session().head(constants.ENDPOINT, timeout=ANSWER_S)
    except Exception:  # whatever the HTTP client of this version raises
        return False
    return True
