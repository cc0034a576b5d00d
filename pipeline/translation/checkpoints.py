"""Model folders: found here or fetched from the hub, told apart, their licences and languages read."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.translation.translator import need, one_line

CONVERTED = "model.bin"  # what makes a folder one of CTranslate2's
CHECKPOINT = "checkpoint.json"  # in a converted folder, the configuration of what was converted
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FETCHED = ("*.json", "*.safetensors", "*.spm", "*.model", "*.txt", "README.md")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def find(name: str) -> Path:
    """The folder of --mt-model NAME: a folder here, else a model of the hub, downloaded."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONVERTED).is_file() and not (folder / "config.json").is_file():
            raise UsageError(
                f"--mt-model: {folder} is no model: wanted a CTranslate2 folder (model.bin, its vocabulary and "
                "sentencepiece files) or a Transformers checkpoint (config.json, weights, tokenizer)"
            )
        if not any((folder / weights).is_file() for weights in (CONVERTED, *_WEIGHTS)):
            raise UsageError(f"--mt-model: {folder} has no weights: wanted model.bin or model.safetensors there")
        return folder
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise UsageError(
            f"--mt-model: {name} is no folder: wanted the folder of a model, or a name on the model hub such as "
            "Helsinki-NLP/opus-mt-en-de"
        )
    return _fetched(name)


def _fetched(name: str) -> Path:
    hub = need("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=list(_FETCHED)))
        if not any(folder.glob("*.safetensors")):  # older models come in PyTorch's own format alone
            folder = Path(hub.snapshot_download(name, allow_patterns=[*_FETCHED, "pytorch_model*.bin"]))
        return folder
    except ValueError as error:  # the hub's own errors are OSErrors
        raise UsageError(f"--mt-model: {name} is no name on the model hub: {one_line(error)}") from error
    except OSError as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404):
            raise UsageError(f"--mt-model: {name} is neither a folder here nor a public model of the hub") from error
        raise EnvironmentTrouble(
            f"--mt-model: {name} is no folder here, and the model hub cannot be reached ({one_line(error)}): "
            "give the path of a model's folder"
        ) from error


def configuration(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of the folder; {} where it is missing. Raises UsageError where it is no JSON object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"--mt-model: {path} is no JSON ({error}): fetch the model again") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"--mt-model: {path} holds no JSON object: fetch the model again")
    return loaded


def positions(folder: Path) -> int | None:
    """Tokens that the model's position embeddings hold, as its checkpoint tells; None where it does not."""
    found = configuration(folder, CHECKPOINT if (folder / CONVERTED).is_file() else "config.json")
    number = found.get("max_position_embeddings")
    return number if isinstance(number, int) else None


def license_of(folder: Path) -> str:
    """The licence in the front matter of the folder's README.md; "" where it names none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    matter = re.match(r"---\s*\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        loaded = yaml.safe_load(matter.group(1)) if matter else None
    except yaml.YAMLError:
        return ""
    found = loaded.get("license") if isinstance(loaded, dict) else None
    names = found if isinstance(found, list) else [found]
    return " ".join(str(name) for name in names if name)


def noncommercial(license_name: str) -> bool:
    """Whether a licence forbids commercial use, as far as its name tells, such as `CC BY-NC 4.0` or `cc_by_nc4`."""
    return bool(re.search(r"(?<![a-z])nc(?![a-z])|non[\W_]*commercial", license_name, re.IGNORECASE))


def pair_of(folder: Path, name: str) -> tuple[str, str]:
    """The source and target language that a model of one pair is for, as far as folder and name tell: "" where not."""
    found = configuration(folder, "tokenizer_config.json")
    named = re.search(r"opus-mt-(?:tc-\w+-)?([a-z]{2,3})-([a-z]{2,3})(?![a-z])", name.lower())
    by_name = named.groups() if named else ("", "")
    source, target = (str(found.get(f"{side}_lang") or "") for side in ("source", "target"))
    return (source or by_name[0], target or by_name[1])
