"""Tasks of MTEB: a model as the package `mteb` encodes with it, without descriptions, and the scores as it has them."""

from collections.abc import Sequence
from typing import Any

import langcodes
import numpy as np
from mteb import evaluate, get_task
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.retrieval.encoders import open_space

INPUTS = {"text", "image", "audio", "video"}  # columns of a batch
HITS = {"hit_rate_at_1": "R@1", "hit_rate_at_5": "R@5", "hit_rate_at_10": "R@10"}


class MtebEncoder(AbsEncoder):
    """Texts and pictures as the vectors of a checkpoint, see `open_space`."""

    def __init__(self, checkpoint: str):
        self.space = open_space(checkpoint)
        name = f"leccr/{checkpoint.strip('/').split('/')[-1]}"
        about = {"name": name, "revision": self.space.model, "embed_dim": self.space.width}
        self.mteb_model_meta = ModelMeta.create_empty({**about, "modalities": ["text", "image"]})

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """The inputs as vectors [N,E]: documents of tasks with only texts as descriptions, other texts as queries."""
        is_description = prompt_type == "document" and task_metadata.modalities == ["text"]
        encode_texts = self.space.descriptions if is_description else self.space.texts
        vectors = []
        for batch in inputs:
            kinds = INPUTS & batch.keys()
            if kinds not in ({"text"}, {"image"}):
                raise UsageError(
                    f"--mteb {task_metadata.name} has {' with '.join(sorted(kinds))}: expected text or image"
                )
            if kinds == {"text"}:
                vectors.append(encode_texts(batch["text"]))
            else:
                vectors.append(self.space.pictures([[picture.convert("RGB")] for picture in batch["image"]]))
        vectors_NE = np.concatenate(vectors)
        if not vectors_NE.any():
            raise UsageError(f"--mteb {task_metadata.name} has pictures, which this model does not read")
        return vectors_NE


def score_tasks(
    checkpoint: str, names: Sequence[str], languages: Sequence[str], batch_size: int, device: Any
) -> list[dict[str, Any]]:
    """Score tasks by name, in these languages (BCP 47) or all; returns the results as MTEB writes them.

    Raises:
        UsageError: MTEB has no such task, or the model cannot read its inputs.
        EnvironmentTrouble: A data set cannot be had.
    """
    try:
        codes = [langcodes.get(tag).to_alpha3() for tag in languages]
        tasks = [get_task(name, codes or None) for name in names]
    except LookupError as error:
        raise UsageError(f"--mteb {','.join(names)}: {str(error.args[0]).removeprefix('KeyError: ')}") from error
    encoder = MtebEncoder(checkpoint)
    encoder.space.to(device)
    settings: Any = {"encode_kwargs": {"batch_size": batch_size}, "cache": None, "co2_tracker": False}
    try:
        result = evaluate(encoder, tasks, show_progress_bar=False, **settings)
    except OSError as error:
        raise EnvironmentTrouble(f"--mteb: {str(error).splitlines()[0]}") from error
    return [task.model_dump(mode="json") for task in result.task_results]


def format_tasks(results: Sequence[dict[str, Any]]) -> str:
    """The scores as lines for the terminal, in percent: each task's own, and the recalls of retrieval."""
    lines = ["MTEB, without descriptions:"]
    for task in results:
        for split, subsets in task["scores"].items():
            for scores in subsets:
                figures = [f"{scores['main_score'] * 100:.1f}"]
                figures += [f"{title} {scores[name] * 100:.1f}" for name, title in HITS.items() if name in scores]
                lines.append(f"{task['task_name']} {scores['hf_subset']} {split}: {' · '.join(figures)}")
    return "\n".join(lines)
