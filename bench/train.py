"""What training costs, each figure beside the plain thing it is to be compared with, in one run.

    python bench/train.py                 everything, about half an hour of two processors
    python bench/train.py --part step     one part: step, adapt, cached, loading, waiting, frozen

- step: a step (forward, backward, AdamW) of LECCR next to its two towers by themselves, ViT-B/32 and XLM-R-base with
  random weights, batch 32: slots=views and slots=queries with stored states of the descriptions, and slots=views with
  descriptions encoded anew each step. Needs only torch and transformers.
- adapt: a step of SigLIP 2 base (patch 16, 256 pixels, 256,000 tokens) with random weights, batch 4 (on a GPU 64), all
  of it trained, with gradient checkpointing, and with LoRA; LECCR with slots=views and stored states.
- cached: the step by cached gradients at effective batches of 64 to 4,096 beside the plain step; tiny towers, on a GPU
  those of `step`.
- loading: `bench/loading.py`.
- waiting: the share of a run's time that goes by waiting for data.
- frozen: samples per second with the frozen embedded encoders, their outputs stored and computed anew.

A contender is a process of its own; they take turns, so that a noisy neighbour disturbs all of them alike. Where there
is a GPU, steps run on it in bf16, and the memory is its own.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import Measured, machine, measured, spread

CAPTION_TOKENS, VIEWS, VIEW_TOKENS = 24, 5, 24
EFFECTIVE = (64, 256, 1024, 4096)
MICRO, MICRO_GPU = 64, 256
STEPS = {"large": (1, 2), "adapt": (1, 1), "cached": (1, 3)}  # not timed, timed
STEPS_GPU = {"large": (5, 20), "adapt": (5, 20), "cached": (1, 3)}
FROZEN_ITEMS, FROZEN_BATCH = 100, 64
VIEW_SLOTS = {"views": [f"view {number}" for number in range(VIEWS)]}
LARGE: dict[str, dict[str, Any]] = {
    "two towers": {"slots": "none"},
    "LECCR, slots=views": VIEW_SLOTS,
    "LECCR, slots=queries": {"slots": "queries", "heads": "random"},
    "LECCR, states computed": VIEW_SLOTS,
}
ADAPTED: dict[str, dict[str, Any]] = {
    "all weights": {},
    "all, gradient checkpointing": {"checkpointed": True},
    "lora=16": {"lora": 16},
    "lora=16, gradient checkpointing": {"lora": 16, "checkpointed": True},
}
MOST = 1.15  # a step of LECCR over one of the two towers


def large_batch(model: Any, kept: bool, number: int, count: int, pixels: int = 224, tokens: int = 0) -> Any:
    """Batch `number` of `count` samples; `tokens` is the length of every text, where it is the same for all."""
    import torch

    from model.batch import Batch, Media, Texts

    random = torch.Generator().manual_seed(number)

    def ids(*shape: int) -> Texts:
        return Texts(torch.randint(4, 1000, shape, generator=random), torch.ones(shape, dtype=torch.bool))

    frames = torch.randint(0, 255, (count, 1, 3, pixels, pixels), generator=random, dtype=torch.uint8)
    descriptions = ids(count, VIEWS, tokens or VIEW_TOKENS)
    if kept:
        states = model.describe_states(Texts(*(x.to(device()) for x in descriptions)))
        descriptions = Texts(states.tokens.half().cpu(), states.mask.cpu())  # as they are kept
    return Batch(
        Media(frames, torch.ones(count, 1, dtype=torch.bool)),
        ids(count, tokens or CAPTION_TOKENS),
        ids(count, tokens or CAPTION_TOKENS),
        descriptions,
        torch.arange(count) + number * count,
        torch.ones(count),
    )


def large(batch: int, name: str, count: int = 1, compiled: bool = False) -> Callable[[], None]:
    """A step of `count` batches at the sizes of CLIP ViT-B/32 and XLM-R-base."""
    import torch
    import transformers

    from model.modeling import LeccrModel

    torch.manual_seed(0)
    vision = transformers.CLIPVisionConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, patch_size=32
    )
    text = transformers.XLMRobertaConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, vocab_size=250_002,
        max_position_embeddings=514,
    )  # fmt: skip
    model = LeccrModel.create(
        {"kind": "transformers", "class": "CLIPVisionModel", "config": vision.to_diff_dict()},
        {"kind": "transformers", "class": "XLMRobertaModel", "config": text.to_diff_dict()},
        **LARGE[name],
    )
    model.to(device())
    if compiled:
        model.compile()
    return stepping(model, [large_batch(model, "slots=" in name, number, batch) for number in range(count)])


def adapting(batch: int, name: str) -> Callable[[], None]:
    """A step of SigLIP 2 base."""
    import torch
    import transformers

    from model.modeling import LeccrModel

    torch.manual_seed(0)
    vision = transformers.SiglipVisionConfig(image_size=256, patch_size=16)
    text = transformers.SiglipTextConfig(vocab_size=256_000, projection_size=768)
    settings = dict(ADAPTED[name])
    checkpointed = settings.pop("checkpointed", False)
    model = LeccrModel.create(
        {"kind": "transformers", "class": "SiglipVisionModel", "config": vision.to_diff_dict()},
        {"kind": "transformers", "class": "SiglipTextModel", "config": text.to_diff_dict()},
        **VIEW_SLOTS,
        **settings,
    )
    model.to(device())
    if checkpointed:
        model.activation_checkpointing_enable()
    return stepping(model, [large_batch(model, True, 0, batch, 256, 64)])


def cached(effective: int) -> Callable[[], None]:
    """A step of `effective` samples, MICRO at once; of MICRO samples it is the plain step."""
    import torch

    if device() == "cuda":
        return large(MICRO_GPU, "LECCR, slots=queries", effective // MICRO_GPU)

    from model.batch import Batch, Media, Texts
    from model.modeling import LeccrModel

    torch.manual_seed(0)
    tower = {"kind": "tiny", "width": 128, "layers": 4, "heads": 4}
    model = LeccrModel.create(
        {**tower, "image_size": 64, "patch_size": 8}, {**tower, "vocab_size": 1000, "max_tokens": 32}, embed_dim=128
    )
    ones = torch.ones(MICRO, 20, dtype=torch.bool)

    def texts() -> Texts:
        return Texts(torch.randint(4, 1000, (MICRO, 20)), ones)

    batches = [
        Batch(
            Media(torch.randint(0, 255, (MICRO, 1, 3, 64, 64), dtype=torch.uint8), ones[:, :1]),
            texts(),
            texts(),
            Texts(torch.randn(MICRO, 30, 128), torch.ones(MICRO, 30, dtype=torch.bool)),
            torch.arange(MICRO) + start,
            torch.ones(MICRO),
        )
        for start in range(0, effective, MICRO)
    ]
    return stepping(model, batches)


def stepping(model: Any, batches: list[Any]) -> Callable[[], None]:
    import torch

    from model.batch import map_tensors, to_device
    from model.objective import objective
    from model.parts import cached_step
    from model.settings import ObjectiveConfig

    model.to(device()).train()
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=device() == "cuda" or None)  # as in training
    if device() == "cuda":
        batches = [map_tensors(batch, torch.Tensor.pin_memory) for batch in batches]  # as the loader does
    config = ObjectiveConfig(distillation_weight=0.5 if model.config.slots != "none" else 0.0)

    def features_of(batch: Any) -> Any:
        with torch.autocast(device(), torch.bfloat16, enabled=device() == "cuda"):
            return model(batch)

    def step() -> None:
        cached_step(
            features_of,
            batches,
            lambda features, ids, weights: objective(features, model.logit_scales, ids, weights, config),
            model.temperature_parameters,
            prepare=lambda batch: to_device(batch, torch.device(device())),
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def contend(contender: str) -> None:
    """One contender, in this process: the median of its steps' seconds and a GPU's peak memory in MiB, as JSON."""
    import torch

    kind, _, name = contender.partition(":")
    make = {"large": large, "adapt": adapting, "cached": cached}[kind]
    step = make(*json.loads(name))
    on_gpu = device() == "cuda"
    warm, timed = (STEPS_GPU if on_gpu else STEPS)[kind]
    seconds = []
    clock = time.process_time if kind == "adapt" and not on_gpu else time.perf_counter
    for number in range(warm + timed):
        began = clock()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        if number >= warm:
            seconds.append(clock() - began)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    print(json.dumps([statistics.median(seconds), peak]))


def race(contenders: list[str], rounds: int) -> dict[str, tuple[list[float], float]]:
    """Of each contender its seconds by round, and its peak memory in MiB, a GPU's where it runs on one."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = dict.fromkeys(contenders, 0.0)
    for _ in range(rounds):
        for name in contenders:
            process: Measured = measured([sys.executable, __file__, "--contender", name])
            found, peak_gpu = json.loads(process.output.strip().splitlines()[-1])
            seconds[name].append(found)
            peaks[name] = max(peaks[name], peak_gpu or process.peak_mib)
    return {name: (seconds[name], peaks[name]) for name in contenders}


def ratios(found: list[float], beside: list[float]) -> str:
    """Round by round: what disturbs both does not disturb their ratio."""
    return spread([mine / theirs for mine, theirs in zip(found, beside, strict=True)])


def race_over(base: str, contenders: dict[str, str], rounds: int) -> dict[str, str]:
    """Race contenders, given by name, and print a table; returns the seconds of each over those of one of them."""
    results = race(list(contenders.values()), rounds)
    base_seconds, base_peak = results[contenders[base]]
    print(f"{'':<34}{'seconds':>24}{f'over {base}':>24}{'peak MiB':>12}{'over':>8}")
    over = {}
    for name, contender in contenders.items():
        seconds, peak = results[contender]
        over[name] = ratios(seconds, base_seconds)
        print(f"{name:<34}{spread(seconds, 3):>24}{over[name]:>24}{peak:>12,.0f}{peak / base_peak:>8.2f}")
    return over


def step_part(rounds: int, compiled: bool) -> None:
    batches = (32, 256) if device() == "cuda" else (32,)
    for batch in batches:
        views = f"{VIEWS} views of {VIEW_TOKENS} tokens"
        print(f"\na step at ViT-B/32 and XLM-R-base sizes, batch {batch}, {views}; {machine()}")
        contenders = {name: f"large:{json.dumps([batch, name, 1, compiled])}" for name in LARGE}
        over = race_over("two towers", contenders, rounds)
    last = {name: ratio for name, ratio in over.items() if "slots=" in name}
    figures = ", ".join(f"{name} {ratio}" for name, ratio in last.items())
    print(f"a step over that of the two towers, batch {batches[-1]}: {figures}; at most {MOST} is the aim")


def adapt_part(rounds: int, _: bool) -> None:
    batch = 64 if device() == "cuda" else 4
    print(f"\na step of SigLIP 2 base, batch {batch}, in seconds of the processor or GPU; {machine()}")
    contenders = {name: f"adapt:{json.dumps([batch, name])}" for name in ADAPTED}
    race_over("all weights", contenders, rounds)


def cached_part(rounds: int, _: bool) -> None:
    on_gpu = device() == "cuda"
    towers, micro = ("ViT-B/32 and XLM-R-base sizes", MICRO_GPU) if on_gpu else ("tiny towers of width 128", MICRO)
    sizes = [effective for effective in EFFECTIVE if effective >= micro]
    print(f"\nthe cached step, {micro} samples at once, {towers}; {machine()}")
    found = race([f"cached:[{effective}]" for effective in sizes], rounds)
    plain, plain_peak = found[f"cached:[{micro}]"]
    per_plain = [value / micro for value in plain]
    print(f"{'effective batch':<28}{'ms a sample':>24}{'over the plain step':>24}{'peak MiB':>12}{'over':>8}")
    for effective in sizes:
        seconds, peak = found[f"cached:[{effective}]"]
        each = [value / effective for value in seconds]
        row = f"{spread([1e3 * value for value in each]):>24}{ratios(each, per_plain):>24}{peak:>12,.0f}"
        print(f"{effective:<28,}{row}{peak / plain_peak:>8.2f}")
    print(f"{micro} is the plain step; wanted: at most 1.45 over it, and flat memory")


def loading_part(*_: Any) -> None:
    print(f"\nloading; {machine()}")
    print(measured([sys.executable, "bench/loading.py"]).output)


def waiting_part(*_: Any) -> None:
    """A run of the recipe `scenes` on a small corpus, loaded by none and by two processes beside the trainer."""
    print(f"\nwaiting for data, recipe scenes, tiny towers; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        measured([sys.executable, "-m", "pipeline.sources.scenes", "--output", corpus, "--items", 1000])
        for workers in (0, 2):
            run = Path(folder) / f"run{workers}"
            program = [sys.executable, "stages/train.py", "--recipe", "scenes", "--data", corpus, "--output", run]
            measured([*program, "steps=40", "validate_every=40", "log_every=10", f"workers={workers}"])
            lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            shares = [line["data_wait"] for line in lines if line["kind"] == "train"][1:]
            print(f"workers={workers}: {statistics.mean(shares):.1%} of the time (after the first ten steps)")


def frozen_part(*_: Any) -> None:
    """Runs with the frozen embedded encoders on 100 pictures, which are encoded in each step or read from the corpus.

    Samples per second after the first epoch, which opens the encoders and fills the cache of sentence vectors.
    """
    print(f"\nstates of frozen encoders, media=embedded text=embedded, {FROZEN_ITEMS} pictures; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        measured([sys.executable, "-m", "pipeline.sources.scenes", "--output", corpus, "--items", FROZEN_ITEMS])
        rates = {}
        for name, slots in (("views", "slots=views"), ("queries", "slots=queries heads=random")):
            for stored, steps in (("no", 8), ("yes", 24)):
                run = Path(folder) / f"{name}-{stored}"
                program = [sys.executable, "stages/train.py", "--recipe", "base", "--data", corpus, "--output", run]
                encoders = ["media=embedded", "text=embedded", *slots.split(), f"cache_states={stored}"]
                sizes = [f"batch_size={FROZEN_BATCH}", f"steps={steps}", f"validate_every={steps}", "log_every=4"]
                process = measured([*program, *encoders, *sizes])
                lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
                figures = [line["samples_per_s"] for line in lines if line["kind"] == "train" and line["epoch"] > 1]
                rates[name, stored] = statistics.median(figures)
                text = f"slots={name}, cache_states={stored}: {spread(figures, 1)} samples/s"
                print(f"{text}; {steps} steps and all else in {process.wall_s:,.1f} s", flush=True)
        for name in ("queries", "views"):
            print(f"frozen {name}: {rates[name, 'yes'] / rates[name, 'no']:.1f} times the samples per second")


PARTS = {
    "step": step_part,
    "adapt": adapt_part,
    "cached": cached_part,
    "loading": loading_part,
    "waiting": waiting_part,
    "frozen": frozen_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="one part, or several (all)")
    parser.add_argument("--rounds", type=int, default=3, help="in which contenders take turns (3)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, in the part step")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options.contender)
        return
    for name in options.part or PARTS:
        PARTS[name](options.rounds, options.compile)


if __name__ == "__main__":
    main()
