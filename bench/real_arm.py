"""The study with texts by real models: nothing is simulated but the pictures.

A small MLLM behind vLLM describes scenes, small Marian models translate their captions, and the arms train on that.

    python bench/real_arm.py --vllm-python .venv-vllm/bin/python     hours of two processors, in pieces
    python bench/real_arm.py --report                                the page from what is there

The MLLM (`bench/scene_captioner.py`) and a Marian model a language are trained once. Each seed has scenes of its own,
which the stages captions, translate and pack describe, translate and pack; intervals are over these corpora. Each piece
is kept in `--work`, and runs are lines of OUTPUT/runs.jsonl.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import study
from bench.arms import Regime
from bench.common import ROOT, machine
from bench.scene_captioner import right_words
from bench.study import LANGUAGES, MAIN, Plan, Scenes
from pipeline.captioning.prompts import BUILT_IN

PAIRS_SEED, PAIRS_ITEMS = 9000, 2000  # scenes whose captions the translators learn from
SERVER = "--enforce-eager --max-model-len 512 --dtype float32"
REAL = Regime("real texts", (tuple(BUILT_IN),))
LETTERS = ("zh", "ja")  # written without spaces: their characters are what words are elsewhere

Rightness = Mapping[str, Mapping[str, float]]  # by view or language: mean F1 of `words`, share that is `exact`


class RealTexts(Scenes):
    """The main arms on corpora that real models described and translated.

    Args:
        output: Folder of the runs.
        work: Folder of models and corpora.
        plan: What is run.
        vllm_python: The interpreter that has vLLM.
    """

    levels = (REAL,)

    def __init__(self, output: Path, work: Path, plan: Plan, vllm_python: Path | None = None):
        super().__init__(output, work, plan)
        self.vllm_python = vllm_python

    def corpus(self, regime: Regime, draw: int) -> Path:
        """The corpus of a seed, by the three stages as a user runs them."""
        corpus, drawn = self.work / f"real-{draw}", self.work / f"drawn-{draw}"
        if (corpus / "training" / "manifest.json").exists():
            return corpus
        draw_scenes(drawn, self.plan, self.first_seed + draw)
        captioner = ["--captioner", "vllm", "--mllm", self.work / "mllm", "--vllm-python", self.vllm_python]
        models = [part for tag in LANGUAGES for part in ("--mt-model", f"{tag}={self.work / f'mt-{tag}'}")]
        translator = ["--languages", ",".join(LANGUAGES), "--translator", "ctranslate2", "--mt-license", "CC0-1.0"]
        for name, given in {
            "captions": ["--input", drawn / "media", *captioner, "--vllm-args", SERVER],
            "translate": [*translator, *models],
            "pack": [],
        }.items():
            run_program("beam_runner.py", "--stage", name, "--output", corpus, *given)
        return corpus

    def rightness(self, seeds: Sequence[int]) -> dict[str, list[Rightness]]:
        """How right the descriptions and translations of each corpus are."""
        folders = [(self.corpus(REAL, seed), self.work / f"drawn-{seed}") for seed in seeds]
        return {
            "descriptions": [described_right(*folder) for folder in folders],
            "translations": [translated_right(*folder) for folder in folders],
        }


def run_program(*arguments: object) -> None:
    """Run a program of the project."""
    # a gibibyte for the server's cache of keys and values: its own guess is a large share of the machine
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, check=True)


def draw_scenes(folder: Path, plan: Plan, seed: int) -> None:
    """A corpus without noise: its media, with captions.jsonl, are the input, its texts the references."""
    from pipeline.sources.scenes.corpus import Settings, write_corpus

    settings = Settings(plan.items, plan.held_out, plan.held_out, seed=seed, languages=LANGUAGES)
    write_corpus(folder, dataclasses.replace(settings, translation_noise=0, description_errors=0))
    by_item: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows_of(folder, "captions"):
        by_item[row["item_id"]].append({"text": row["text"], "language": row["language"]})
    lines = [json.dumps({"file": item, "captions": texts}, ensure_ascii=False) for item, texts in by_item.items()]
    (folder / "media" / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def rows_of(corpus: Path, table: str) -> Iterable[dict[str, Any]]:
    """The rows of a table."""
    from pipeline.corpus.table import Table

    return Table(corpus, table).rows()


def make_models(work: Path, minutes: float, mt_minutes: float) -> None:
    """Train the MLLM and the translators that are not there yet."""
    from tests.marian import make_marian

    if not (work / "mllm" / "examined.json").exists():
        run_program("bench/scene_captioner.py", work / "mllm", "--minutes", minutes)
    for tag in LANGUAGES:
        folder = work / f"mt-{tag}"
        if not (folder / "README.md").exists():
            make_marian(folder, pairs(tag), steps=100_000, minutes=mt_minutes, vocabulary=1000, width=128, rate=2e-3)


def pairs(language: str) -> list[tuple[str, str]]:
    """English captions of scenes that no corpus has, with what a translator should make of them."""
    from pipeline.sources.scenes.corpus import Settings, item_messages, plan
    from pipeline.sources.scenes.grammar import SOURCE, caption

    items = plan(Settings(items=PAIRS_ITEMS, val=0, test=0, seed=PAIRS_SEED))
    messages = [message for item in items for message in item_messages(item, PAIRS_SEED)]
    return [(caption(message, SOURCE), caption(message, language)) for message in messages]


def described_right(corpus: Path, truth: Path) -> Rightness:
    """By view, how right a corpus' descriptions are, against those of the same scenes without errors."""
    expected = {(row["item_id"], row["view"]): row["text"] for row in rows_of(truth, "descriptions")}
    return judge(
        (row["view"], "en", row["text"], [expected[row["item_id"], row["view"]]])
        for row in rows_of(corpus, "descriptions")
    )


def translated_right(corpus: Path, truth: Path) -> Rightness:
    """By language, how right translations are, against all that the grammar says for the same English caption."""
    english: dict[str, str] = {row["caption_id"]: row["text"] for row in rows_of(truth, "captions")}
    expected: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows_of(truth, "translations"):
        expected[row["item_id"], english[row["caption_id"]], row["target_language"]].append(row["text"])
    return judge(
        (tag, tag, row["text"], expected[row["item_id"], row["source_text"], tag])
        for row in rows_of(corpus, "translations")
        if (tag := row["target_language"]) and (row["item_id"], row["source_text"], tag) in expected
    )


def judge(texts: Iterable[tuple[str, str, str, list[str]]]) -> Rightness:
    """Of (name, language, text, what would be right): the nearest of these counts."""
    judged: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for name, language, text, expected in texts:
        judged[name].append((max(f1(text, other, language) for other in expected), text in expected))
    rightness = {}
    for name, verdicts in judged.items():
        words, exact = zip(*verdicts, strict=True)
        rightness[name] = {"words": statistics.mean(words), "exact": statistics.mean(exact)}
    return rightness


def f1(text: str, expected: str, language: str = "en") -> float:
    """F1 of words, of characters where a language has no spaces."""
    return right_words(*(" ".join(of.replace(" ", "")) if language in LETTERS else of for of in (text, expected)))


def rightness_table(by_corpus: Sequence[Rightness]) -> list[str]:
    """Mean F1 and, in brackets, the share that is exactly right; over corpora, with the least and the greatest F1."""
    names = list(by_corpus[0])
    cells = []
    for name in names:
        words = [of[name]["words"] for of in by_corpus]
        exact = statistics.mean(of[name]["exact"] for of in by_corpus)
        cells.append(f"{statistics.mean(words):.1%}, {min(words):.1%} to {max(words):.1%} ({exact:.1%})")
    return [f"| {' | '.join(names)} |", f"|{' ---: |' * len(names)}", f"| {' | '.join(cells)} |", ""]


def main(argv: Sequence[str] | None = None) -> None:
    """Make models and corpora, run the arms, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "real_arm", help="folder of models and corpora")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "study" / "real", help="folder of runs and page")
    parser.add_argument(
        "--vllm-python", type=Path, help="the interpreter that has vLLM, as tests/vllm/setup_env.sh makes"
    )
    parser.add_argument("--minutes", type=float, default=25, help="of training the MLLM (25)")
    parser.add_argument("--mt-minutes", type=float, default=4, help="of training each translator (4)")
    parser.add_argument("--seeds", type=int, default=5, help="corpora (5)")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page from what is there")
    options = parser.parse_args(argv)
    python = options.vllm_python and options.vllm_python.absolute()  # a link is left as it is: it chooses the packages
    bench = RealTexts(options.output, options.work.absolute(), Plan(seeds=options.seeds), python)
    seeds = range(options.seeds)
    if not options.report:
        if python is None or not python.exists():
            parser.error(f"--vllm-python: {python} is not an interpreter. Run tests/vllm/setup_env.sh to make one.")
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        print(machine(), flush=True)
        make_models(bench.work, options.minutes, options.mt_minutes)
        bench.study(seeds, list(MAIN))
        (bench.output / "texts.json").write_text(json.dumps(bench.rightness(seeds), indent=1) + "\n", "utf-8")
    texts = json.loads((bench.output / "texts.json").read_text("utf-8"))
    rightness = [line for name, by_corpus in texts.items() for line in (f"### {name}", "", *rightness_table(by_corpus))]
    tables, _ = study.report(bench.lines, [REAL.name])
    study.fill_page(bench.output / "README.md", "\n".join([tables, *rightness]))


if __name__ == "__main__":
    main()
