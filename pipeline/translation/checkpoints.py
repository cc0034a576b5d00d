"""Folders of translation models: found or downloaded, described by their own files, converted for CTranslate2 once."""

import json
import os
import re
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import folder_hash, short_hash
from pipeline.optional import import_optional

CONVERTED = "model.bin"  # marks a folder as a CTranslate2 model
_CHECKPOINT_CONFIG = "checkpoint.json"  # the checkpoint's configuration, kept in a converted folder
_DOWNLOADED = ("*.json", "*.safetensors", "*.spm", "*.model", "*.txt", "README.md")
_CONVERTIBLE = ("marian", "m2m_100", "t5")  # model_type of Marian, of M2M100 and NLLB, of MADLAD
_TOKENIZERS = ("source.spm", "target.spm", "sentencepiece.bpe.model", "spiece.model", "tokenizer_config.json")
# What converters raise for broken files.
_UNREADABLE = (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
# Incremented when the result of a conversion changes: older results are then converted again.
_FORMAT = 1


def require(module: str) -> Any:
    """Import a module of a package that translation models need."""
    return import_optional(module, "mt", "the translator")


def one_line(error: Exception) -> str:
    """The start of an error's message, on one line."""
    return " ".join(str(error).split())[:200]


def find_model(name: str) -> Path:
    """The folder that `--mt-model NAME` names, downloaded from the model hub if there is no such folder.

    Raises:
        UsageError: There is no such model, or its folder lacks files.
        EnvironmentTrouble: The hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if (folder / CONVERTED).is_file() or (folder / "config.json").is_file():
        return folder
    if folder.exists() or name.count("/") != 1:
        raise UsageError(
            f"--mt-model: {name} is not a model. Give a CTranslate2 folder (model.bin, its vocabulary and "
            "sentencepiece files), a Transformers checkpoint (config.json, weights, tokenizer), or a name on the model "
            "hub such as Helsinki-NLP/opus-mt-en-de"
        )
    return _download(name)


def _download(name: str) -> Path:
    hub = require("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=list(_DOWNLOADED)))
        if not any(folder.glob("*.safetensors")):  # older models only have PyTorch's own format
            folder = Path(hub.snapshot_download(name, allow_patterns=[*_DOWNLOADED, "pytorch_model*.bin"]))
        return folder
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors; ValueError: not a valid name
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, ValueError) or status in (401, 403, 404):
            raise UsageError(f"--mt-model: {name} is neither a folder nor a public model of the hub") from error
        raise EnvironmentTrouble(
            f"--mt-model: {name} is not a folder, and the model hub cannot be reached ({one_line(error)}): "
            "give the path of a model's folder"
        ) from error


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON file of the folder; {} where it is missing. Raises UsageError where it is not a JSON object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UsageError(f"--mt-model: {path} is not a JSON object ({error}): download the model again") from error


def max_positions(folder: Path) -> int | None:
    """How many tokens the position embeddings of a converted model hold; None where its files do not say."""
    number = read_config(folder, _CHECKPOINT_CONFIG).get("max_position_embeddings")
    return number if isinstance(number, int) else None


def license_of(folder: Path) -> str:
    """The licence in the front matter of the folder's README.md; "" where it names none."""
    path = folder / "README.md"
    try:
        metadata = require("huggingface_hub").metadata_load(path) if path.is_file() else None
    except (ValueError, yaml.YAMLError):
        return ""
    names = (metadata or {}).get("license")
    return " ".join(str(name) for name in (names if isinstance(names, list) else [names]) if name)


def noncommercial(license_name: str) -> bool:
    """Whether a licence forbids commercial use, judged by its name, such as `CC BY-NC 4.0` or `cc_by_nc4`."""
    return bool(re.search(r"(?<![a-z])nc(?![a-z])|non[\W_]*commercial", license_name, re.IGNORECASE))


def language_pair(folder: Path, name: str) -> tuple[str, str]:
    """The source and target language of a model of one pair, by its files, else its name; "" where unknown."""
    config = read_config(folder, "tokenizer_config.json")
    match = re.search(r"opus-mt-(?:tc-\w+-)?([a-z]{2,3})-([a-z]{2,3})(?![a-z])", name.lower())
    source, target = match.groups() if match else ("", "")
    return str(config.get("source_lang") or source), str(config.get("target_lang") or target)


def convert_model(checkpoint: Path, cache: Path, quantization: str) -> Path:
    """Convert a Transformers checkpoint for CTranslate2, once: the result is kept below `cache`.

    Several processes may do so at once: each converts into a folder of its own, and the first result stays.

    Args:
        checkpoint: Folder with a Marian, M2M100, NLLB or MADLAD (T5) model.
        cache: Folder of converted models.
        quantization: CTranslate2's name of the weights' type, such as `int8`.

    Returns:
        The folder of the converted model.

    Raises:
        UsageError: CTranslate2 cannot serve this checkpoint, or it cannot be read.
        EnvironmentTrouble: The result cannot be written.
    """
    config = read_config(checkpoint)
    if config.get("model_type") not in _CONVERTIBLE:
        raise _not_served(checkpoint, f"its type {config.get('model_type')!r} is not one of {', '.join(_CONVERTIBLE)}")
    if config["model_type"] == "marian" and not config.get("share_encoder_decoder_embeddings", True):
        raise _not_served(checkpoint, "its source and target have separate vocabularies, and the converter keeps one")
    final = cache / f"{short_hash(f'{_FORMAT} {folder_hash(checkpoint)} {quantization}')}-{quantization}"
    if final.is_dir():
        return final
    temporary = cache / f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _convert(checkpoint, temporary, quantization)
        for name in _TOKENIZERS:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, temporary / name)
        shutil.copyfile(checkpoint / "config.json", temporary / _CHECKPOINT_CONFIG)
        for path in temporary.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.rename(final)
    except OSError as error:
        if not final.is_dir():  # else another process was first
            raise EnvironmentTrouble(
                f"the converted model cannot be written to {cache}: {error.strerror or error}: free space there, or "
                "name another cache folder in $XDG_CACHE_HOME"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _not_served(checkpoint: Path, reason: str) -> UsageError:
    return UsageError(
        f"--mt-model: CTranslate2 cannot serve {checkpoint}: {reason}. Give another model, or --translator llm"
    )


def _convert(checkpoint: Path, folder: Path, quantization: str) -> None:
    require("torch")
    logging = require("transformers").utils.logging
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    converter_class = require("ctranslate2.converters").TransformersConverter

    class Converter(converter_class):  # type: ignore[misc, valid-type]
        def load_model(self, model_class: Any, *args: Any, **kwargs: Any) -> Any:
            model = super().load_model(model_class, *args, **kwargs)
            _check_padding(checkpoint, model)
            return model

        def load_tokenizer(self, tokenizer_class: Any, *args: Any, **kwargs: Any) -> Any:
            tokenizer = super().load_tokenizer(tokenizer_class, *args, **kwargs)
            # Transformers 5 leaves M2M100's language tokens out of the vocabulary that the converter reads.
            vocabulary = tokenizer.get_vocab()
            ids = getattr(tokenizer, "lang_token_to_id", {})
            missing = [token for token in sorted(ids, key=ids.__getitem__) if token not in vocabulary]
            tokenizer.add_tokens(missing, special_tokens=True)
            return tokenizer

    cut = require("safetensors").SafetensorError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Converter(str(checkpoint)).convert(str(folder), quantization=quantization)
        except (*_UNREADABLE, cut) as error:
            if isinstance(error, OSError) and error.errno:  # an error of the disk; Transformers' own have no number
                raise
            raise UsageError(
                f"--mt-model: {checkpoint} cannot be converted ({one_line(error)}): download it again, or give another"
            ) from error


def _check_padding(checkpoint: Path, model: Any) -> None:
    """CTranslate2 starts Marian's decoder from a zero vector; fine-tuning in Transformers may have changed it."""
    if model.config.model_type != "marian":
        return
    pad = model.config.pad_token_id
    embedding = model.get_input_embeddings().weight[pad]
    if pad != model.config.vocab_size - 1 or embedding.abs().max().item() > 0:
        raise _not_served(
            checkpoint,
            "<pad> is not its last token with an embedding of zeros, as in published Marian models (fine-tuning in "
            "Transformers changes it)",
        )
