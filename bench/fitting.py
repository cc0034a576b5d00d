"""What search makes of captions, of words to avoid, and of things that no photograph shows; needs Flickr8k.

    python bench/fitting.py --photos FLICKR8K [--split test]

FLICKR8K is the folder of `bench.photos_corpus`. Its photographs are described by the embedded describer and indexed
with `--checkpoint embedded`, once without captions and once with four of five: the fifth is a query. bench/absent.txt
holds things to ask for; those that a caption of the split names are left out.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import machine, stage
from bench.photos_corpus import ENGLISH, read_captions, read_splits
from stages import index
from stages.retrieval.engine import Hit, Index, Query

NOUNS = (  # noqa: SIM905
    "dog cat bird horse car bicycle motorcycle boat beach snow mountain river lake pool grass football tennis soccer "
    "basketball skateboard surfboard wave swing slide bench building bridge tree sunglasses guitar microphone camera "
    "umbrella tent cliff fence stairs couch bed bus truck helmet sled rope frisbee toy stick fountain crowd sign fire"
).split()
TOPICS = {
    "dog": r"\bdogs?\b|pupp", "snow": "snow", "beach": "beach|sand", "grass": "grass|field", "bicycle": "bik|cycl",
    "water": r"\bwater|pool|ocean|lake|river|\bsea\b", "ball": r"ball|soccer|tennis", "street": "street|road|sidewalk",
    "mountain": "mountain|cliff|hill|climb", "child": "child|boy|girl|kid|baby", "stick": "stick", "jump": "jump|leap",
}  # fmt: skip
ENOUGH = 15  # photographs that show one thing with, and without, another


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument("--split", default="test", help="its split (default: test)")
    options = parser.parse_args(argv)
    english = read_captions(options.photos, ENGLISH)
    captions = {name: english[name] for name in sorted(read_splits(options.photos)[options.split])}
    print(f"{len(captions):,} photographs of split {options.split}; {machine()}\n")
    print("| index | R@1 | R@10 | R@10, said to fit | things found | found, said to fit | absent things: said so |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as home:
        corpus = described(Path(home), options.photos, captions)
        exclusions = []
        for name, given in (("descriptions", ["--no-captions"]), ("and four captions", [])):
            folder = Path(home) / name.split()[0]
            paths = ["--data", str(corpus), "--output", str(folder), "--brief"]
            index.main(["--checkpoint", "embedded", *paths, *given])
            finder = Index.open(folder)
            print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares(finder, captions))} |", flush=True)
            exclusions += [f"| {name} | {' | '.join(f'{share:.1%}' for share in excluded(finder, captions))} |"]
    print("\n| index | shows what is to be avoided | asked to avoid it | right | asked to avoid it |")
    print("\n".join(["| --- | ---: | ---: | ---: | ---: |", *exclusions]))


def described(home: Path, photos: Path, captions: dict[str, list[str]]) -> Path:
    """A packed corpus of the photographs, with all but the last caption of each."""
    folder, corpus = home / "photos", home / "corpus"
    folder.mkdir()
    for name in captions:
        (folder / name).symlink_to((photos / "images" / name).absolute())
    lines = [json.dumps({"file": name, "captions": texts[:-1]}) for name, texts in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(lines), "utf-8")
    stage("captions", corpus, "--input", folder, "--captioner", "embedded")
    stage("pack", corpus)
    return corpus


def shares(finder: Index, captions: dict[str, list[str]]) -> list[float]:
    """The cells of a row of the first table."""
    answers = ask(finder, [texts[-1] for texts in captions.values()])
    firsts = [hits[0].item_id == name for name, hits in zip(captions, answers, strict=True)]
    by_caption = [outcome(hits, [name]) for name, hits in zip(captions, answers, strict=True)]
    words = {name: set(re.findall("[a-z]+", " ".join(texts).lower())) for name, texts in captions.items()}
    shown = {noun: [name for name in words if noun in words[name]] for noun in NOUNS}
    nouns = [noun for noun in NOUNS if shown[noun]]
    answers = ask(finder, [f"a {noun}" for noun in nouns])
    by_noun = [outcome(hits, shown[noun]) for noun, hits in zip(nouns, answers, strict=True)]
    text = " ".join(" ".join(texts).lower() for texts in captions.values())
    lines = [line.split("|") for line in Path(__file__).with_name("absent.txt").read_text("utf-8").splitlines()]
    absent = [thing for thing, word in lines if not re.search(rf"\b{word}s?\b", text)]
    nothing_fits = [not any(hit.fits for hit in hits) for hits in ask(finder, absent)]
    return [np.mean(firsts), *np.mean(by_caption, axis=0), *np.mean(by_noun, axis=0), np.mean(nothing_fits)]


def ask(finder: Index, queries: list[str], exclude: str = "") -> list[list[Hit]]:
    batches = [queries[start : start + 64] for start in range(0, len(queries), 64)]
    return [hits for batch in batches for hits in finder.find([Query(text, None, exclude) for text in batch], 10)]


def outcome(hits: list[Hit], right: list[str]) -> tuple[bool, bool]:
    """Whether a right item is among the hits, and whether that is so and the first hit is said to fit."""
    found = any(hit.item_id in right for hit in hits)
    return found, found and bool(hits[0].fits)


def excluded(finder: Index, captions: dict[str, list[str]]) -> list[float]:
    """Of ten results, the share that shows what is to be avoided, and that shows only what is asked for."""
    has = {
        topic: {name for name, texts in captions.items() if re.search(pattern, " ".join(texts).lower())}
        for topic, pattern in TOPICS.items()
    }
    both, right = np.zeros((0, 2)), np.zeros((0, 2))
    for topic in TOPICS:
        for other in TOPICS:
            enough = min(len(has[topic] & has[other]), len(has[topic] - has[other])) >= ENOUGH
            if topic != other and enough:
                answers = [ask(finder, [topic], exclude)[0] for exclude in ("", other)]
                both = np.vstack([both, [np.mean([hit.item_id in has[other] for hit in hits]) for hits in answers]])
                only = has[topic] - has[other]
                right = np.vstack([right, [np.mean([hit.item_id in only for hit in hits]) for hits in answers]])
    return [*both.mean(0), *right.mean(0)]


if __name__ == "__main__":
    main()
