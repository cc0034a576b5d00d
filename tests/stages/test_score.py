"""score.py and its report: figures against loops, the table, the files, and what it refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from model.config import LeccrConfig
from pipeline.corpus.table import manifest_hash
from pipeline.errors import UsageError
from stages import score
from stages.scoring.checkpoint import find_checkpoint
from stages.scoring.embed import Embedded
from stages.scoring.report import figures, format_table, write_queries
from stages.training.validation import selection_label
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual
from tests.stages.indexed import write_model

WAYS = ("text_to_media", "media_to_text")


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def embedded(items=9, **counts):
    """By language so many texts for each item; `fr` has none of the first two items."""
    ids = torch.randperm(items, generator=torch.Generator().manual_seed(3)) + 100
    texts = {}
    for number, (language, count) in enumerate(counts.items()):
        mine = ids[2:] if language == "fr" else ids
        texts[language] = unit(len(mine) * count, 5, seed=number + 1), mine.repeat(count)
    return Embedded(ids, unit(items, 5), unit(items, 2, 5, seed=9), texts)


def by_loops(split, language, weight):
    """Ranks and best scores both ways in 64 bits, and the items of the queries."""
    text_ME, items_M = split.texts[language]
    keep_N = torch.isin(split.item_ids, items_M)
    ids = split.item_ids[keep_N]
    global_MN = text_ME.double() @ split.media_NE[keep_N].double().T
    local_MN = torch.einsum("me,nke->mnk", text_ME.double(), split.slots_NKE[keep_N].double()).amax(2)
    scores = weight * global_MN + (1 - weight) * local_MN
    own = items_M[:, None] == ids
    ranks = []
    for lines, owns in ((scores, own), (scores.T, own.T)):
        best = [line[mine].max() for line, mine in zip(lines, owns, strict=True)]
        above = (line[~mine] >= b for line, mine, b in zip(lines, owns, best, strict=True))
        ranks.append(([1 + int(hits.sum()) for hits in above], [float(b) for b in best]))
    return *ranks, items_M.tolist(), ids.tolist()


def test_figures_are_of_the_ranks_of_each_language():
    split = embedded(de=2, fr=1, cs=1)
    result, _ = figures(split, 0.7)
    assert list(result["languages"]) == ["de", "fr", "cs"]
    for language, found in result["languages"].items():
        there, back, _, ids = by_loops(split, language, 0.7)
        for way, (ranks, _) in zip(WAYS, (there, back), strict=True):
            shares = [100 * np.mean(np.array(ranks) <= k) for k in (1, 5, 10)]
            assert [found[way][f"r{k}"] for k in (1, 5, 10)] == pytest.approx(shares)
            assert found["median_rank"][way] == np.median(ranks)
        assert found["sum_r"] == pytest.approx(sum(value for way in WAYS for value in found[way].values()))
        assert (found["items"], found["texts"]) == (len(ids), len(there[0]))
        low, high = found["intervals"]["sum_r"]
        assert low <= found["sum_r"] <= high and low < high
    assert result["mean"]["sum_r"] == pytest.approx(np.mean([it["sum_r"] for it in result["languages"].values()]))
    assert result["languages"]["fr"]["chance"]["text_to_media"]["r1"] == pytest.approx(100 / 7)


def test_the_table_has_the_figures():
    result, _ = figures(embedded(de=2, fr=1), 1.0)
    lines = format_table(result, ["fr: a note"]).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["language", "de", "fr", "mean", "chance"]
    de = result["languages"]["de"]
    cells = [value for way in WAYS for value in (*de[way].values(), de["median_rank"][way])]
    assert lines[2].split()[1:10] == [f"{value:.1f}" for value in (*cells, de["sum_r"])]
    assert f"{result['mean_rank_variance']['value']:.1f} over 7 items" in lines[6]
    assert lines[-1] == "fr: a note"
    single = format_table(figures(embedded(de=1), 1.0)[0]).splitlines()
    assert [line.split()[0] for line in single[1:]] == ["language", "de", "chance"]


def test_every_query_has_a_row(tmp_path):
    split = embedded(de=2, fr=1)
    _, ranks = figures(split, 0.7)
    names = {number: f"item {number}" for number in split.item_ids.tolist()}
    captions = {
        language: [f"{language} {n}" for n in range(len(items))] for language, (_, items) in split.texts.items()
    }
    write_queries(tmp_path / "q.parquet", ranks, names, captions)
    expected = []
    for language in ("de", "fr"):
        there, back, items, ids = by_loops(split, language, 0.7)
        for way, queries, of, found in (
            ("text_to_media", captions[language], items, there),
            ("media_to_text", [names[i] for i in ids], ids, back),
        ):
            for query, item, rank, best in zip(queries, of, *found, strict=True):
                expected.append((language, way, query, names[item], rank, pytest.approx(best, abs=1e-6)))
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "q.parquet").to_pylist()] == expected


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), global_weight=0.3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("corpus"), 30, videos=2)


@pytest.fixture
def scored(tmp_path, corpus):
    """scored(checkpoint, *options) returns the JSON report."""

    def run(checkpoint, *more, data=corpus):
        given = ["--checkpoint", str(checkpoint), "--data", str(data), "--output", str(tmp_path / "scores.json")]
        assert score.main([*given, *map(str, more)]) == 0
        return json.loads((tmp_path / "scores.json").read_text())

    return run


def run_of(folder, model_folder, split="val"):
    """A run as training leaves it."""
    (folder / "checkpoints").mkdir()
    (folder / "best").symlink_to(model_folder)
    best = {"split": split, "step": 40, "sum_r": 123.4, "global_weight": 0.3, "chance": 50.0, "recalls": {}}
    record = {"settings": {"slot_views": ["short"]}, "best": best, "label": selection_label(split)}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_scored_from_its_best_weights(tmp_path, model_folder, corpus, scored, capsys):
    run = run_of(tmp_path, model_folder)
    report = scored(run, "--per-query", tmp_path / "q.parquet", "--batch-size", 5)
    screen = capsys.readouterr().out
    assert report["checkpoint"] == {
        "name": str(run),
        "source": str(run / "best"),
        "model_type": "leccr",
        "selection": {"split": "val", "step": 40, "sum_r": 123.4, "global_weight": 0.3},
        "recipe": "",
        "method": "",
    }
    assert report["corpora"] == [{"name": corpus.name, "training": manifest_hash(corpus, "training")}]
    assert report["split"] == "val" and report["items"] == 9
    assert report["settings"] == {"global_weight": 0.3, "slot_views": ["short"], "batch_size": 5}
    assert list(report["languages"]) == ["de", "en", "fr"] and report["notes"] == []
    assert format_table(report) in screen and "9 items, global weight 0.3\n" in screen
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    ranks = [row["rank"] for row in rows if (row["language"], row["direction"]) == ("fr", "text_to_media")]
    assert report["languages"]["fr"]["median_rank"]["text_to_media"] == np.median(ranks)


def test_options_override_the_model(model_folder, scored):
    default = scored(model_folder)
    assert default["settings"] == {"global_weight": 0.3, "slot_views": [], "batch_size": 64}
    assert default["checkpoint"]["selection"] is None
    other = scored(
        model_folder, *["--languages", "fr", "--global-weight", "1", "--split", "train", "--slot-views", "detail"]
    )
    assert other["settings"]["global_weight"] == 1 and other["settings"]["slot_views"] == ["detail"]
    assert list(other["languages"]) == ["fr"] and other["split"] == "train" and other["items"] == 21
    assert other["notes"] == ["fr: no human text in split train: scored on machine-made texts"]
    by_slots = scored(model_folder, "--global-weight", 0)
    assert by_slots["mean"] != default["mean"]
    assert by_slots["languages"] != scored(model_folder, "--global-weight", 0, "--slot-views", "detail")["languages"]
    other_seed = scored(model_folder, "--global-weight", 0, "--seed", 1)["mean"]
    assert other_seed["sum_r"] == by_slots["mean"]["sum_r"] and other_seed["intervals"] != by_slots["mean"]["intervals"]


def test_weights_chosen_on_the_test_split_say_so(tmp_path, model_folder, scored, capsys):
    report = scored(run_of(tmp_path, model_folder, split="test"))
    assert "selected on test" in capsys.readouterr().out
    assert "selected on test" in report["notes"][0]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_baseline_is_scored_on_the_same_split(tmp_path, kind, scored, capsys):
    report = scored(write_dual(tmp_path / "dual", kind))
    assert report["checkpoint"]["model_type"] == kind and report["items"] == 9
    assert "9 items, only global similarity" in capsys.readouterr().out


def test_items_without_a_text_in_a_language_are_left_out_of_its_gallery(tmp_path, model_folder, scored):
    rows = [row(number, "val") for number in range(8)]
    for item in rows[5:]:
        item["captions"] = [caption for caption in item["captions"] if caption["language"] != "fr"]
    report = scored(model_folder, data=write_rows(tmp_path / "corpus", rows))
    assert {name: found["items"] for name, found in report["languages"].items()} == {"de": 8, "en": 8, "fr": 5}
    assert report["mean_rank_variance"]["items"] == 5
    assert len(report["notes"]) == 1 and report["notes"][0].startswith("fr: 5 of 8 items")


def test_what_is_not_a_checkpoint_is_refused(tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, message in ((tmp_path / "nothing", "no such folder, and no model"), (tmp_path, "neither best/ nor")):
        with pytest.raises(UsageError, match=message):
            find_checkpoint(str(name))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match=r"has no .*best yet"):
        find_checkpoint(str(tmp_path))
    assert find_checkpoint(str(model_folder)).model_type == "leccr"


def test_weights_of_other_sizes_are_refused(tmp_path):
    write_model(tmp_path)
    config = LeccrConfig.from_pretrained(tmp_path)
    config.embed_dim = 12
    config.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="cannot be loaded"):
        find_checkpoint(str(tmp_path)).load()
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UsageError, match="cannot be loaded"):
        find_checkpoint(str(tmp_path)).load()


@pytest.mark.parametrize(
    "given, message",
    [
        ("--split tset", r"tset.*train.*val"),
        ("--languages de,pl", "pl.*split 'val' has texts in de, en, fr"),
        ("--global-weight 1.5", "--global-weight.*1.5"),
        ("--explain 2", "needs --output"),
        ("--output .", "is a folder"),
        ("--slot-views foo", "foo.*detail, short"),
        ("--per-query no/q.parquet", "--per-query.*does not exist"),
        ("--languges de", "unrecognized arguments: --languges"),
    ],
)
def test_mistakes_are_refused(given, message, model_folder, corpus):
    with pytest.raises(UsageError, match=message):
        score.main(["--checkpoint", str(model_folder), "--data", str(corpus), *given.split()])


def test_a_model_that_has_diverged_is_refused(tmp_path, corpus):
    of = processor()
    model = tiny_model(of.vocabulary)
    model.media_head.weight.data.fill_(torch.nan)
    for part in (model, of):
        part.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not finite: the model has diverged"):
        score.main(["--checkpoint", str(tmp_path), "--data", str(corpus)])
