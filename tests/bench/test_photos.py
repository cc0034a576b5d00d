"""The photographs' bench: how its corpus withholds captions, how runs are kept and compared."""

import dataclasses
import random

import numpy as np
import pytest

from bench import adapt, photos, photos_corpus, photos_report
from bench.arms import UNTRAINED, Run
from bench.photos import ARMS, NOISY, STRONG, Photos, Plan
from pipeline.corpus.table import Table
from stages.training.settings import resolve
from tests.stages.corpora import picture

NAMES = {"train": [f"t{n}.jpg" for n in range(12)], "val": ["v0.jpg", "v1.jpg"], "test": ["e0.jpg", "e1.jpg"]}
ALL = [name for names in NAMES.values() for name in names]


def english(name):
    return [f"the {name[:-4]}x dog number{chr(97 + number)} runs" for number in range(5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flickr8k")
    (folder / "images").mkdir()
    for number, name in enumerate(ALL):
        (folder / "images" / name).write_bytes(picture(number))
    for split, names in NAMES.items():
        (folder / f"flickr8k{split}.txt").write_text("".join(f"{name.removesuffix('.jpg')}\n" for name in names))
    for file, kind, mark in zip(photos_corpus.FILES, ("enc", "zhc", "zhb"), ("", "人", "机"), strict=True):
        texts = [(name, number, text) for name in ALL for number, text in enumerate(english(name))]
        lines = [f"{name}#{kind}#{number} {mark}{text}\n" for name, number, text in texts]
        (folder / file).write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(data, tmp_path_factory):
    return photos_corpus.make_corpus(data, tmp_path_factory.mktemp("photos") / "corpus")


def test_descriptions_are_withheld_and_only_translations_are_trained_on(corpus):
    rows = {row["item_id"]: row for row in Table(corpus, "training").rows()}
    assert {name: row["split"] for name, row in rows.items()} == {n: s for s, names in NAMES.items() for n in names}
    for name, row in rows.items():
        views = {view["view"]: view["text"] for view in row["descriptions"]}
        own = {text["text"] for text in row["captions"] if text["language"] == "en"}
        assert own | {views["strong-0"], views["strong-1"]} == set(english(name)) and len(own) == 3
        chinese = [text for text in row["captions"] if text["language"] == "zh"]
        if row["split"] == "train":
            assert {text["origin"] for text in chinese} == {"mt"} and {text["text"][1:] for text in chinese} == own
        else:
            assert {text["origin"] for text in chinese} == {"human"} and len(chinese) == 5
        of_split = " ".join(text for other in NAMES[row["split"]] for text in english(other)).split()
        assert set(views["noisy0-0"].split()) <= {*of_split, "something"}


def test_noisy_views_lose_content_words_and_some_are_of_another_picture():
    text = "the red dog runs over a hill"
    words = [photos_corpus.drop_words(text, random.Random(seed)).split() for seed in range(2_000)]
    assert all({"the", "over", "a"} <= set(of) for of in words)
    assert np.mean([4 - len({"red", "dog", "runs", "hill"} & set(of)) for of in words]) == pytest.approx(1, abs=0.1)
    names = [f"{number}.jpg" for number in range(2_000)]
    texts = {name: [f"{name}-0", f"{name}-1"] for name in names}
    views = photos_corpus.describe({"train": names}, texts, dict.fromkeys(names, (0, 1)))
    wrong = np.mean([not views[name]["noisy1-0"].startswith(f"{name}-") for name in names])
    bad = np.mean([not views[name]["bad"].startswith(f"{name}-") for name in names])
    assert wrong == pytest.approx(0.15, abs=0.03) and bad == pytest.approx(0.5, abs=0.04)


def test_every_arm_resolves_and_all_try_as_many_settings(tmp_path):
    runs = Photos(tmp_path, tmp_path, Plan())
    assert {len(ARMS[name].grid) for name in ("corrected", "towers on descriptions", "joint")} == {6}
    for regime in (STRONG, NOISY):
        for name, arm in ARMS.items():
            for chosen in arm.grid:
                settings = resolve("photos", runs.settings(Run(regime, 0, name, 0, chosen)))
                assert settings.languages == ("zh",) and not settings.human_targets
    assert "strong" not in " ".join(runs.settings(Run(NOISY, 2, "towers on descriptions", 0, photos.TOWERS_GRID[3])))


class Scripted(Photos):
    """Scores from the run's name: the second of the settings is the best."""

    def __init__(self, *given):
        super().__init__(*given)
        self.trained = []

    def ensure(self, run):
        if line := self.find(self.key(run)):
            return line
        self.trained.append(run)
        value = 100 + 10 * ARMS[run.arm].grid.index(run.chosen) + run.seed
        return self.add(self.key(run), run.chosen, {row: scored(value) for row in ARMS[run.arm].rows}, 0.0)

    def ensure_untrained(self, regime, draw):
        pass


def scored(value):
    hits = {"hits": ["10"] * 6, "queries": ["11", "11"]}
    return {"val": value, "weight": 0.5, "pooling": "mean", "languages": {"zh": {"sum_r": value, **hits}}}


def test_settings_are_tried_with_one_seed_and_a_stopped_bench_goes_on(tmp_path):
    plan = Plan(seeds=2, draws=1, tried=2, groups=(("corrected", "joint"),), regimes=(STRONG,), trust=False)
    runs = Scripted(tmp_path, tmp_path, plan)
    runs.study()
    assert [(run.arm, run.seed, run.chosen) for run in runs.trained] == [
        *((arm, 0, photos.GRID[number]) for arm in ("corrected", "joint") for number in (0, 1)),
        *((arm, 1, photos.GRID[1]) for arm in ("corrected", "joint")),
    ]
    lines = runs.path.read_text().splitlines()
    runs.path.write_text("\n".join(lines)[:-20])  # as a kill may leave it
    again = Scripted(tmp_path, tmp_path, plan)
    again.study()
    assert [(run.arm, run.seed) for run in again.trained] == [("joint", 1)]
    assert runs.path.read_text().splitlines()[:-1] == lines[:-1]
    table = photos_report.Scores(again.lines, "strong")
    assert table.chosen["joint"] == list(photos.GRID[1]) and table.mean("joint", "zh") == 110.5


def line(arm, seed, sum_r, hits, draw=0, settings=("steps=1",)):
    score = scored(sum_r) | {"languages": {"zh": {"sum_r": sum_r, **hits}}}
    return {"regime": "strong", "draw": draw, "arm": arm, "seed": seed, "chosen": [], "settings": settings} | {
        "scores": {arm: score}
    }


def some_hits(generator, share):
    to_media = np.where(generator.random(200) < share, 1, 100)
    return photos_report.encode_hits(to_media, np.arange(200), to_media, np.arange(200))


def test_differences_are_paired_and_what_has_no_seed_is_compared_with_every_seed():
    generator = np.random.default_rng(0)
    lines = []
    for seed in range(3):
        base = some_hits(np.random.default_rng(1), 0.5)  # the same pictures are found for every seed
        lines += [line("joint", seed, 300 + seed, base), line("corrected", seed, 310 + seed, base)]
    lines += [line("descriptions only", 0, 200, some_hits(generator, 0.2), settings=())]
    lines += [line("late fusion", 0, 305, some_hits(generator, 0.5))]  # its other seeds are not there yet
    scores = photos_report.Scores(lines, "strong")
    same = scores.difference("corrected", "joint", "zh")
    assert (same.mean, same.low, same.high, same.runs) == (10, 0, 0, 3)  # hits that are equal do not scatter
    assert scores.difference("corrected", "late fusion", "zh").runs == 1
    other = scores.difference("corrected", "descriptions only", "zh")
    assert other.runs == 3 and 120 < other.low < 180 < other.high < 260


@pytest.mark.torture
def test_real_runs(corpus, tmp_path, monkeypatch):
    small = {
        name: dataclasses.replace(ARMS[name], settings=("batch_size=4", *ARMS[name].settings))
        for name in ("corrected", "towers", "slots are queries", "faithful")
    }
    monkeypatch.setattr(photos, "ARMS", small)
    plan = Plan(seeds=2, draws=1, tried=1, groups=(tuple(small),), regimes=(STRONG,), trust=False, steps=2)
    runs = Photos(tmp_path, corpus, plan)
    runs.study()
    rows = {row for line in runs.lines for row in line["scores"]}
    alone = {*UNTRAINED, "slots are queries", "faithful", "corrected, no descriptions"}
    paired = {f"{pair}{row}" for pair in ("", "two of ") for row in ("corrected", "two towers", "late fusion")}
    assert rows == alone | paired
    assert all(set(score["languages"]) == {"en", "zh"} for line in runs.lines for score in line["scores"].values())
    with_views = [line["scores"]["late fusion"] for line in runs.lines if line["arm"] == "towers"]
    assert all(0 < score["val"] <= 600 for score in with_views)


def test_descriptions_to_adapt_with_are_translated_as_texts_of_their_views(data):
    texts = {name: photos_corpus.read_captions(data, name) for name in photos_corpus.FILES}
    rows = adapt.corpus_rows(data, NAMES, texts)
    english = {(row["item_id"], row["view"]): row["text"] for row in rows["descriptions"]}
    for name in NAMES["train"]:
        captions = {row["caption_id"]: row["text"] for row in rows["captions"] if row["item_id"] == name}
        for view in photos_corpus.strong_views():
            assert captions[f"{name}#{view}>zh"] == f"机{english[name, view]}"
        assert {text[1:] for key, text in captions.items() if "#zh#" in key} == {
            text for key, text in captions.items() if "#en#" in key
        }
    assert {row["origin"] for row in rows["captions"] if row["item_id"] in NAMES["val"]} == {"human"}
