"""Trains a small multimodal LLM on scenes, one that vLLM serves: the Idefics3 architecture, a few million parameters.

    python bench/scene_captioner.py OUT --minutes 25
    python beam_runner.py --stage captions --captioner vllm --mllm OUT --vllm-python VLLM_ENV/bin/python …

It answers the built-in prompts about pictures of 64 pixels that `pipeline.sources.scenes` drew, and nothing else: each
prompt is one token. For a part of the time its eye alone learns which facts hold of a picture: from answers' words it
would find out what to look at much later. At the end it is asked about scenes that it has not seen: how many answers
are right to the letter, and how many words.
"""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.vllm.make_model import BOS, EOS, IMAGE_TOKENS, PAD, TEMPLATE

PIXELS, PATCH, SHUFFLE = 64, 8, 2  # 64 patches, four of them to an image token
WIDTH, HEAD, LAYERS = 192, 64, 4  # of both towers
VOCABULARY = 1024
BATCH, RATE, WARMUP = 48, 1.5e-3, 100  # pictures, peak, steps
EYE = 0.4  # share of the time
ASIDE = 100  # scenes to be asked about at the end
WORD = re.compile(r"\w+")


class Scenes:
    """Pictures and, by view, what is true of them; and the single facts."""

    def __init__(self, count: int, seed: int):
        from pipeline.sources.scenes.content import generator
        from pipeline.sources.scenes.corpus import Settings, plan
        from pipeline.sources.scenes.drawing import frames
        from pipeline.sources.scenes.noise import descriptions

        items = plan(Settings(items=count, val=0, test=0, size=PIXELS, seed=seed))
        self.pictures = [frames(it.scene, PIXELS, generator(seed, it.item_id, "drawing"))[0] for it in items]
        self.descriptions = [descriptions(it.scene, 0.0, seed, it.item_id) for it in items]
        self.facts = [facts(it.scene.truth()) for it in items]


def facts(truth: dict[str, Any]) -> set[str]:
    """What holds of a scene, each by itself: a kind, and that kind's colour, size, number and place."""
    found = {f"at {truth['background']}"}
    for group in truth["objects"]:
        kind = group["kind"]
        found |= {kind, *(f"{group[name]} {kind}" for name in ("colour", "size", "count", "position"))}
    return found


def make_processor(texts: Sequence[str], prompts: Sequence[str]) -> Idefics3Processor:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD, *IMAGE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(IMAGE_TOKENS),
        model_max_length=2048,
    )
    fast.add_tokens([AddedToken(prompt, normalized=False) for prompt in prompts])
    edge = {"longest_edge": PIXELS}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    return Idefics3Processor(images, fast, image_seq_len=(PIXELS // PATCH // SHUFFLE) ** 2, chat_template=TEMPLATE)


def make_model(processor: Idefics3Processor) -> Idefics3ForConditionalGeneration:
    ids = processor.tokenizer.convert_tokens_to_ids
    special = {"bos_token_id": ids(BOS), "eos_token_id": ids(EOS), "pad_token_id": ids(PAD)}
    shape = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": WIDTH // HEAD}
    text = {
        **shape,
        **special,
        "model_type": "llama",
        "vocab_size": len(processor.tokenizer),
        "intermediate_size": 3 * WIDTH,
        "num_key_value_heads": WIDTH // HEAD,
        "head_dim": HEAD,
        "max_position_embeddings": 2048,
    }
    vision = {**shape, "intermediate_size": 3 * WIDTH, "image_size": PIXELS, "patch_size": PATCH}
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=SHUFFLE,
        image_token_id=ids(IMAGE_TOKENS[0]),
        dtype="float32",
        **special,
    )
    return Idefics3ForConditionalGeneration(config)


def prompt_ids(processor: Idefics3Processor, prompt: str, picture: Any) -> list[int]:
    """Of the chat with a picture, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=text, images=[picture])["input_ids"][0]


class Teacher:
    """Batches of (picture, view) with the answer's tokens as what is to be said."""

    def __init__(self, scenes: Scenes, processor: Idefics3Processor):
        from pipeline.captioning.captioners import question
        from pipeline.captioning.prompts import BUILT_IN

        self.pad = processor.tokenizer.pad_token_id
        first = scenes.pictures[0]
        self.prompts = {name: prompt_ids(processor, question(view, []), first) for name, view in BUILT_IN.items()}
        encode = processor.tokenizer
        self.answers = [
            {name: [*encode(f" {text}")["input_ids"], encode.eos_token_id] for name, text in views.items()}
            for views in scenes.descriptions
        ]
        shown = [pixels_of(processor, scenes.pictures[at : at + 500]) for at in range(0, len(scenes.pictures), 500)]
        self.pixels = torch.cat(shown)
        names = sorted(set().union(*scenes.facts))
        self.facts = torch.tensor([[name in found for name in names] for found in scenes.facts])

    def seen(self, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = random.integers(0, len(self.answers), BATCH)
        return self.pixels[chosen], self.facts[chosen].float()

    def batch(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = random.integers(0, len(self.answers), BATCH)
        names = list(self.prompts)
        rows = []
        for number in chosen:
            name = names[random.integers(len(names))]
            rows.append((self.prompts[name], self.answers[number][name]))
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        tokens = torch.full((BATCH, longest), self.pad)
        labels = torch.full((BATCH, longest), -100)
        for row, (prompt, answer) in enumerate(rows):
            tokens[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return {
            "input_ids": tokens,
            "attention_mask": (tokens != self.pad).long(),
            "labels": labels,
            "pixel_values": self.pixels[chosen],
        }


class Eye(nn.Module):
    """The model's eye, with a head for facts that is thrown away: a fact holds where some image token shows it."""

    def __init__(self, model: Idefics3ForConditionalGeneration, facts: int):
        super().__init__()
        self.features = model.model.get_image_features
        self.parts = nn.ModuleList([model.model.vision_model, model.model.connector])
        self.head = nn.Linear(WIDTH, facts)
        nn.init.constant_(self.head.bias, -4.0)  # most do not hold

    def forward(self, pixel_values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        tokens = torch.stack(self.features(pixel_values).pooler_output)
        seen = torch.logsumexp(self.head(tokens).float(), dim=1)
        return nn.functional.binary_cross_entropy_with_logits(seen, wanted, reduction="sum") / len(wanted)


def learn(
    parts: nn.Module, loss_of: Callable[[np.random.Generator], torch.Tensor], minutes: float, rate: float, seed: int
) -> int:
    """Trains for that long; returns the steps."""
    random, peak = np.random.default_rng(seed), rate
    optimizer = torch.optim.AdamW(parts.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    began, step, reported = time.monotonic(), 0, 0.0
    parts.train()
    while (elapsed := time.monotonic() - began) < 60 * minutes:
        done = elapsed / (60 * minutes)
        rate = peak * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):  # half the time where the processor has instructions for it
            loss = loss_of(random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if elapsed - reported > 30:
            reported = elapsed
            print(f"step {step}: loss {loss.item():.3f}, {elapsed / 60:.1f} of {minutes:g} minutes", flush=True)
    return step


def pixels_of(processor: Idefics3Processor, pictures: Sequence[Any]) -> torch.Tensor:
    return processor.image_processor([[picture] for picture in pictures], return_tensors="pt")["pixel_values"]


@torch.inference_mode()
def examined(model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, scenes: Scenes) -> dict[str, Any]:
    """By view: share of answers that are right to the letter, and how far their words are those of the true text."""
    from pipeline.captioning.captioners import question
    from pipeline.captioning.prompts import BUILT_IN

    model.eval()
    found = {}
    for name, view in BUILT_IN.items():
        exact, words = [], []
        prompt = torch.tensor([prompt_ids(processor, question(view, []), scenes.pictures[0])])
        for start in range(0, len(scenes.pictures), BATCH):
            pictures = scenes.pictures[start : start + BATCH]
            pixels = pixels_of(processor, pictures)
            ids = prompt.expand(len(pictures), -1)
            out = model.generate(
                input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=view.max_tokens,
                do_sample=False,
            )  # fmt: skip
            answers = processor.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for answer, views in zip(answers, scenes.descriptions[start:], strict=False):
                exact.append(answer.strip() == views[name])
                words.append(right_words(answer, views[name]))
        found[name] = {"exact": float(np.mean(exact)), "words": float(np.mean(words))}
    return found


def right_words(answer: str, truth: str) -> float:
    """F1 of the words, each counted as often as it stands there."""
    given, true = (WORD.findall(text.lower()) for text in (answer, truth))
    common = sum(min(given.count(word), true.count(word)) for word in set(given))
    return 2 * common / (len(given) + len(true)) if given or true else 1.0


def main(argv: Sequence[str] | None = None) -> None:
    from pipeline.captioning.captioners import question
    from pipeline.captioning.prompts import BUILT_IN

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=25, help="of training (25)")
    parser.add_argument("--scenes", type=int, default=12000, help="pictures to learn from (12,000)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and weights (1); that of a study's must differ")
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    scenes, unseen = Scenes(options.scenes, 1000 + options.seed), Scenes(ASIDE, 5000 + options.seed)
    prompts = [question(view, []) for view in BUILT_IN.values()]
    processor = make_processor(
        [*(text for views in scenes.descriptions for text in views.values()), "User: Assistant:"], prompts
    )
    model = make_model(processor)
    size = sum(weight.numel() for weight in model.parameters())
    print(f"{size:,} parameters, {len(processor.tokenizer)} tokens, {options.scenes:,} scenes", flush=True)
    teacher = Teacher(scenes, processor)
    eye = Eye(model, teacher.facts.shape[1])
    looks = learn(eye, lambda random: eye(*teacher.seen(random)), EYE * options.minutes, RATE, options.seed)
    steps = learn(
        model, lambda random: model(**teacher.batch(random)).loss, (1 - EYE) * options.minutes, RATE, options.seed
    )
    model.save_pretrained(options.out)
    processor.save_pretrained(options.out)
    found = examined(model, processor, unseen)
    report = {
        "parameters": size,
        "steps": [looks, steps],
        "minutes": options.minutes,
        "scenes": options.scenes,
        "unseen": ASIDE,
        "views": found,
    }
    (options.out / "examined.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    for name, figures in found.items():
        print(f"{name:<12} exact {figures['exact']:.1%}, words {figures['words']:.1%}")


if __name__ == "__main__":
    main()
