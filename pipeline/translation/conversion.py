"""A Transformers checkpoint converted for CTranslate2, once: the result is kept in a folder and found there again."""

import contextlib
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import folder_hash, short_hash
from pipeline.translation.checkpoints import CHECKPOINT, configuration
from pipeline.translation.families import SPM_FILES
from pipeline.translation.translator import need, one_line

# What is converted: a checkpoint's model_type, and the sentencepiece files that it must come with.
_SERVED = {
    "marian": ("source.spm", "target.spm"),
    "m2m_100": ("sentencepiece.bpe.model",),  # NLLB as well
    "t5": ("spiece.model",),  # MADLAD
}
_BESIDES = ("README.md", "tokenizer_config.json")
# Raised when what conversion makes of a checkpoint changes: older results are then made again.
_FORMAT = 1


class Unservable(UsageError):
    """CTranslate2 would not translate as the checkpoint does; Transformers may."""


def unservable(checkpoint: Path) -> str:
    """Why CTranslate2 cannot serve a Transformers checkpoint, told from its files; "" where it can."""
    config = configuration(checkpoint)
    kind = config.get("model_type")
    if kind not in _SERVED:
        return f"CTranslate2 serves the families {', '.join(_SERVED)} here, this is a model of type {kind!r}"
    missing = [name for name in _SERVED[kind] if not (checkpoint / name).is_file()]
    if missing:
        return f"it has no {' and no '.join(missing)}"
    if kind == "marian" and not config.get("share_encoder_decoder_embeddings", True):
        return "source and target have a vocabulary each, of which the converter keeps but one"
    return ""


def converted(checkpoint: Path, cache: Path, quantization: str) -> Path:
    """The converted model in a folder below `cache`, made now where it is not there yet.

    Safe to call from several processes at once: each converts beside, the first one's result stays.
    Raises Unservable, UsageError for a checkpoint that cannot be read, EnvironmentTrouble where nothing can be written.
    """
    final = cache / f"{short_hash(f'{_FORMAT} {folder_hash(checkpoint)} {quantization}')}-{quantization}"
    if final.is_dir():
        return final
    beside = cache / f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _convert(checkpoint, beside, quantization)
        _keep_beside(checkpoint, beside)
        _sync(beside)
        beside.rename(final)
    except OSError as error:
        if not final.is_dir():  # else another process was first
            raise EnvironmentTrouble(
                f"the converted model cannot be kept in {cache}: {error.strerror or error}: free space there, or "
                "name another cache folder in $XDG_CACHE_HOME"
            ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _keep_beside(checkpoint: Path, folder: Path) -> None:
    for name in (*SPM_FILES, *_BESIDES):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    shutil.copyfile(checkpoint / "config.json", folder / CHECKPOINT)


def _convert(checkpoint: Path, folder: Path, quantization: str) -> None:
    need("torch")
    need("transformers")
    converter_class = need("ctranslate2.converters").TransformersConverter

    class Converter(converter_class):  # type: ignore[misc, valid-type]
        def load_model(self, model_class: Any, *args: Any, **kwargs: Any) -> Any:
            model = super().load_model(model_class, *args, **kwargs)
            _check_padding(model)
            return model

        def load_tokenizer(self, tokenizer_class: Any, *args: Any, **kwargs: Any) -> Any:
            tokenizer = super().load_tokenizer(tokenizer_class, *args, **kwargs)
            # Transformers 5 leaves M2M100's language tokens out of the vocabulary that the converter reads.
            have = tokenizer.get_vocab()
            languages = getattr(tokenizer, "lang_token_to_id", {})
            lost = [token for token in sorted(languages, key=languages.__getitem__) if token not in have]
            tokenizer.add_tokens(lost, special_tokens=True)
            return tokenizer

    unreadable = (OSError, need("safetensors").SafetensorError)
    with quiet():
        try:
            Converter(str(checkpoint)).convert(str(folder), quantization=quantization)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ImportError, *unreadable) as error:
            if isinstance(error, OSError) and error.errno:  # of the disk; Transformers' own have no number
                raise
            raise Unservable(
                f"--mt-model: {checkpoint} cannot be converted for CTranslate2 ({one_line(error)}): "
                "give --translator transformers, or fetch the model again"
            ) from error


def _check_padding(model: Any) -> None:
    """CTranslate2 has Marian start from a zero vector; a model tuned by Transformers may start from another."""
    if model.config.model_type != "marian":
        return
    pad = model.config.pad_token_id
    if pad != model.config.vocab_size - 1:
        raise Unservable("--mt-model: <pad> is not the last token, as CTranslate2 takes for granted of Marian models")
    if model.get_input_embeddings().weight[pad].abs().max().item() > 0:
        raise Unservable(
            "--mt-model: the embedding of <pad>, with which decoding starts, is not zero (tuning by Transformers moves "
            "it), as CTranslate2 takes for granted of Marian models: give --translator transformers"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers without its progress bars, remarks and warnings on standard error."""
    logging = need("transformers").utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sys.stderr.flush()
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
