"""The study's real arm: nothing is simulated but the pictures.

A small MLLM behind vLLM describes scenes, small Marian models translate their captions, and the arms train on that.

    python bench/real_arm.py --vllm-python .venv-vllm/bin/python     about an hour of two processors, in pieces
    python bench/real_arm.py --report                                the page from what is there

Each piece is kept in `--work` and not made again: the MLLM (`bench/scene_captioner.py`), a Marian model a language, the
corpus by the stages captions, translate and pack, and the runs, which are lines in `docs/study/real.jsonl`. Pictures,
captions and held-out queries are those of the study's corpora of seed 0, so that the runs stand beside the study's.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import study_report
from bench.common import ROOT, machine
from bench.scene_captioner import right_words
from bench.study import ARMS, ERRORS, LANGUAGES, NOISES, WHOLE, Plan, commit, train_and_score

SEED = 0  # of the scenes
PAIRS_SEED, PAIRS_ITEMS = 9000, 2000  # scenes whose captions the translators learn from
SERVER = "--enforce-eager --max-model-len 512 --dtype float32"
LINES = "real.jsonl"
LETTERS = ("zh", "ja")  # written without spaces: their characters are what words are elsewhere


def once(path: Path, make: Callable[[], None]) -> None:
    """Makes what is not there yet, and says how long it took."""
    if path.exists():
        print(f"{path} is there", flush=True)
        return
    began = time.monotonic()
    make()
    print(f"{path}: {time.monotonic() - began:.0f} s", flush=True)


def program(*arguments: object) -> None:
    # a gibibyte for the server's cache of keys and values: its own guess is a large share of the machine
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {done.returncode}")


def pairs(language: str) -> list[tuple[str, str]]:
    """English captions of scenes that the study has not, with what a translator should make of them."""
    from pipeline.sources.scenes.grammar import SOURCE, caption
    from pipeline.sources.scenes.rows import Settings, item_messages, plan

    items = plan(Settings(items=PAIRS_ITEMS, val=0, test=0, seed=PAIRS_SEED))
    said = [message for item in items for message in item_messages(item, PAIRS_SEED)]
    return [(caption(message, SOURCE), caption(message, language)) for message in said]


def make_translator(folder: Path, language: str, minutes: float) -> None:
    from tests.marian import make_marian

    make_marian(folder, pairs(language), steps=100_000, minutes=minutes, vocabulary=1000, width=128, rate=2e-3)


def drawn(folder: Path, plan: Plan) -> None:
    """A corpus as the study's, without noise: its media are the input, its captions the references."""
    from pipeline.sources.scenes.corpus import write_corpus
    from pipeline.sources.scenes.rows import Settings

    settings = Settings(
        items=plan.items,
        val=plan.held_out,
        test=plan.held_out,
        seed=SEED,
        languages=LANGUAGES,
        translation_noise=0,
        description_errors=0,
    )
    write_corpus(folder, settings)
    write_captions(folder)


def write_captions(folder: Path) -> None:
    """captions.jsonl beside the media, as a user has it: English for all, other languages for what is held out."""
    by_item: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows(folder, "captions"):
        by_item[row["item_id"]].append({"text": row["text"], "language": row["language"]})
    lines = [json.dumps({"file": item, "captions": said}, ensure_ascii=False) for item, said in by_item.items()]
    (folder / "media" / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def rows(corpus: Path, table: str) -> Iterable[dict[str, Any]]:
    from pipeline.corpus.table import Table

    return Table(corpus, table).rows()


def make_corpus(work: Path, vllm_python: Path) -> None:
    """The three stages, as a user runs them."""
    corpus = work / "corpus"
    described = ("--captioner", "vllm", "--mllm", work / "mllm", "--vllm-python", vllm_python, "--vllm-args", SERVER)
    models = [part for tag in LANGUAGES for part in ("--mt-model", f"{tag}={work / f'mt-{tag}'}")]
    program(
        "beam_runner.py", "--stage", "captions", "--input", work / "drawn" / "media", "--output", corpus, *described
    )
    program(
        "beam_runner.py", "--stage", "translate", "--output", corpus, "--languages", ",".join(LANGUAGES), *models,
        "--translator", "ctranslate2", "--mt-license", "CC0-1.0",
    )  # fmt: skip
    program("beam_runner.py", "--stage", "pack", "--output", corpus)


def right(answer: str, expected: str, language: str = "en") -> float:
    """F1 of words, of characters where a language has no spaces."""
    spaced = [" ".join(text.replace(" ", "")) if language in LETTERS else text for text in (answer, expected)]
    return right_words(*spaced)


Told = dict[str, dict[str, float]]  # by view or language: "words", mean F1, and "exact", share, of what is right


def told_by(judged: Iterable[tuple[str, str, list[str]]], language_of: Callable[[str], str]) -> Told:
    """Of (name, text, what would be right): the best of these counts."""
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for name, text, wanted in judged:
        best = max(right(text, one, language_of(name)) for one in wanted)
        found[name].append((best, text in wanted))
    return {
        name: {"words": statistics.mean(x for x, _ in all_), "exact": statistics.mean(x for _, x in all_)}
        for name, all_ in found.items()
    }


def described_right(corpus: Path, truth: Path) -> Told:
    """By view, how right a corpus' descriptions are, against those of the same scenes without errors."""
    wanted = {(row["item_id"], row["view"]): row["text"] for row in rows(truth, "descriptions")}
    return told_by(
        ((row["view"], row["text"], [wanted[row["item_id"], row["view"]]]) for row in rows(corpus, "descriptions")),
        lambda _: "en",
    )


def translated_right(corpus: Path, truth: Path) -> Told:
    """By language, how right translations are, against all that the grammar says for the same English caption."""
    english: dict[str, str] = {row["caption_id"]: row["text"] for row in rows(truth, "captions")}
    wanted: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows(truth, "translations"):
        wanted[row["item_id"], english[row["caption_id"]], row["target_language"]].append(row["text"])
    own = {row["caption_id"]: row["text"] for row in rows(corpus, "captions")}
    judged = ((row["target_language"], row["text"], (row["item_id"], own[row["caption_id"]], row["target_language"]))
              for row in rows(corpus, "translations"))  # fmt: skip
    return told_by(((name, text, wanted[key]) for name, text, key in judged if key in wanted), lambda tag: tag)


def rightness(work: Path, plan: Plan) -> dict[str, Any]:
    """Of the real corpus, and of simulated ones at each level of the study."""
    from pipeline.sources.scenes.corpus import write_corpus
    from pipeline.sources.scenes.rows import Settings

    found: dict[str, Any] = {
        "descriptions": {"real": described_right(work / "corpus", work / "drawn")},
        "translations": {"real": translated_right(work / "corpus", work / "drawn")},
    }
    for noise, errors in [*((noise, ERRORS[0]) for noise in NOISES), (NOISES[0], ERRORS[1])]:
        folder = work / f"simulated-{noise}-{errors}"
        settings = Settings(
            items=plan.items, val=plan.held_out, test=plan.held_out, seed=SEED, languages=LANGUAGES,
            translation_noise=noise, description_errors=errors,
        )  # fmt: skip
        write_corpus(folder, settings)
        found["descriptions"][f"errors {errors}"] = described_right(folder, work / "drawn")
        found["translations"][f"noise {noise}"] = translated_right(folder, work / "drawn")
    return found


def runs(work: Path, output: Path, plan: Plan, seeds: int, at_once: int) -> None:
    """The arms of the whole on the real corpus; seeds are of weights and order, the corpus is one."""
    path = output / LINES
    there = {(line["arm"], line["seed"]) for line in lines_of(path) if line["plan"] == plan.key()}
    left = [(arm, seed) for seed in range(seeds) for arm in WHOLE if (arm, seed) not in there]

    def carry_out(arm: str, seed: int) -> dict[str, Any]:
        found = train_and_score(work / "corpus", work / f"run-{seed}-{arm.replace(' ', '-')}", ARMS[arm], plan, seed)
        return {"plan": plan.key(), "arm": arm, "seed": seed, **found, "commit": commit()}

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool, path.open("a", encoding="utf-8") as stream:
        for future in concurrent.futures.as_completed([pool.submit(carry_out, *run) for run in left]):
            line = future.result()
            stream.write(f"{json.dumps(line, ensure_ascii=False)}\n")
            stream.flush()
            print(f"{line['arm']}, seed {line['seed']}: SumR {line['sum_r']:.1f}", flush=True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "real_arm", help="folder of all that is made")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "study", help="folder of runs and page")
    parser.add_argument(
        "--vllm-python", type=Path, help="the interpreter that has vLLM, as tests/vllm/setup_env.sh makes"
    )
    parser.add_argument("--minutes", type=float, default=25, help="of training the MLLM (25)")
    parser.add_argument("--mt-minutes", type=float, default=4, help="of training each translator (4)")
    parser.add_argument("--seeds", type=int, default=3, help="runs an arm (3)")
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time, a thread each (2)")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page from what is there")
    options = parser.parse_args(argv)
    work, plan = options.work.absolute(), Plan()
    if not options.report:
        if options.vllm_python is None or not options.vllm_python.exists():
            parser.error(
                f"--vllm-python: got {options.vllm_python}, wanted an interpreter: run tests/vllm/setup_env.sh"
            )
        work.mkdir(parents=True, exist_ok=True)
        once(work / "drawn" / "media" / "captions.jsonl", lambda: drawn(work / "drawn", plan))
        captioner = ("bench/scene_captioner.py", work / "mllm", "--minutes", options.minutes)
        once(work / "mllm" / "examined.json", lambda: program(*captioner))
        for tag in LANGUAGES:
            folder = work / f"mt-{tag}"
            once(folder / "README.md", lambda tag=tag, folder=folder: make_translator(folder, tag, options.mt_minutes))
        # a symbolic link's target would be another environment's interpreter: the path as given
        once(work / "corpus" / "training", lambda: make_corpus(work, options.vllm_python.absolute()))
        expected = {**rightness(work, plan), "captioner": json.loads((work / "mllm" / "examined.json").read_text())}
        (options.output / "real.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        runs(work, options.output, plan, options.seeds, options.at_once)
    expected = json.loads((options.output / "real.json").read_text(encoding="utf-8"))
    found = [line for line in lines_of(options.output / LINES) if line["plan"] == plan.key()]
    study_report.write_real(options.output / "real.md", found, expected, list(WHOLE), machine())


if __name__ == "__main__":
    main()
