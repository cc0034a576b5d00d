"""score.py and its report: figures against loops, the table, the files, and what it refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.corpus.table import manifest_hash
from pipeline.errors import UsageError
from stages import score
from stages.data.batches import EvaluationData
from stages.scoring.arms import Splits
from stages.scoring.baselines import load_baseline
from stages.scoring.checkpoint import find_checkpoint
from stages.scoring.report import format_table
from stages.training.validation import selection_label
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual
from tests.stages.indexed import write_model
from tests.worked_examples import each_example


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
    record = {"settings": {"slot_views": ["short"]}, "best": best | {"items": 9}, "label": selection_label(split)}
    record |= {"corpora": [], "tools": {}}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def settings_of(global_weight, slot_views=(), batch_size=64, **more):
    fusion = {"global_weight": global_weight, "pooling": "mean", "view_weights": {}, "fused_on": None, "views": []}
    return {**fusion, "slot_views": list(slot_views), "batch_size": batch_size, **more}


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
    assert report["settings"] == settings_of(0.3, ["short"], 5)
    assert list(report["languages"]) == ["de", "en", "fr"] and report["notes"] == []
    assert format_table(report) in screen and "9 items, global weight 0.3\n" in screen
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    ranks = [row["rank"] for row in rows if (row["language"], row["direction"]) == ("fr", "text_to_media")]
    assert report["languages"]["fr"]["median_rank"]["text_to_media"] == np.median(ranks)


def test_options_override_the_model(model_folder, scored):
    default = scored(model_folder)
    assert default["settings"] == settings_of(0.3)
    assert default["checkpoint"]["selection"] is None
    other = scored(model_folder, "--languages", "fr", "--split", "train")
    assert list(other["languages"]) == ["fr"] and other["split"] == "train" and other["items"] == 21
    assert other["notes"] == ["fr: no human text in split train: scored on machine-made texts"]
    by_slots = scored(model_folder, "--global-weight", 0)
    assert by_slots["mean"] != default["mean"]
    assert by_slots["languages"] != scored(model_folder, "--global-weight", 0, "--slot-views", "detail")["languages"]
    other_seed = scored(model_folder, "--global-weight", 0, "--seed", 1)["mean"]
    assert other_seed["sum_r"] == by_slots["mean"]["sum_r"] and other_seed["intervals"] != by_slots["mean"]["intervals"]


def test_views_keep_the_trust_of_their_name_in_whatever_order_they_are_given(tmp_path, corpus, scored):
    of = processor()
    model = tiny_model(
        of.vocabulary, slots="views", heads="aligned", embed_dim=0, read_start=1.0, views=("short", "detail")
    )
    with torch.no_grad():
        model.reader.trust_V[0] = -9.0  # no trust in "short"
    for each in (model, of):
        each.save_pretrained(tmp_path / "model")
    default, *others = (
        scored(tmp_path / "model", "--global-weight", 1, *given)["mean"]["sum_r"]
        for given in ((), *(("--slot-views", views) for views in ("detail,short", "all", "detail")))
    )
    assert others == [default] * 3
    assert scored(tmp_path / "model", "--global-weight", 1, "--slot-views", "short")["mean"]["sum_r"] != default


def test_folds_are_galleries_of_consecutive_items(model_folder, scored, corpus, capsys):
    """Mean over folds of 3 of 9 items, ranked here by the vectors themselves."""
    report = scored(model_folder, "--global-weight", "1", "--folds", "3")
    assert "mean of 3 folds" in capsys.readouterr().out and report["folds"]["folds"] == 3
    assert report["folds"]["mean"]["sum_r"] > report["mean"]["sum_r"]
    model, of, _ = find_checkpoint(str(model_folder)).load()
    data = EvaluationData([corpus], "val")
    frames, views = data.items(range(9))
    strings, items = data.texts["de"]
    with torch.no_grad():
        media_NE, _ = model.encode_media(of.media(frames), of.descriptions(views))
        score_MN = model.encode_text(of.texts(strings)) @ media_NE.T
    hits = []
    for start in (0, 3, 6):
        fold = data.item_ids[start : start + 3].tolist()
        rows = [row for row, item in enumerate(items) if item in fold]
        hits.append(np.mean([score_MN[row, start : start + 3].argmax() == fold.index(items[row]) for row in rows]))
    assert report["folds"]["languages"]["de"]["text_to_media"]["r1"] == pytest.approx(100 * np.mean(hits))
    with pytest.raises(UsageError, match="only 9 items"):
        scored(model_folder, "--folds", "10")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_an_untrained_dual_encoder_ranks_as_late_fusion_by_hand(tmp_path, corpus, kind, weight, scored, capsys):
    folder = write_dual(tmp_path / "dual", kind)
    report = scored(folder, "--global-weight", weight, "--per-query", tmp_path / "q.parquet")
    assert report["checkpoint"]["model_type"] == kind and report["items"] == 9
    assert report["settings"] == settings_of(weight, views=["detail", "short"])
    assert ("only global similarity" in capsys.readouterr().out) == (weight == 1)
    model, of = load_baseline(str(folder))
    data = EvaluationData([corpus], "val")
    frames, views = data.items(range(9))
    strings, items = data.texts["de"]
    with torch.no_grad():
        media_NE, _ = model.encode_media(of.media(frames), of.descriptions(views))
        text_ME = model.encode_text(of.texts(strings))
        local_MN = torch.stack([text_ME @ model.encode_text(of.texts(each)).T for each in views]).mean(2).T
    score_MN = weight * text_ME @ media_NE.T + (1 - weight) * local_MN
    own_M = score_MN[range(len(items)), [data.item_ids.tolist().index(item) for item in items]]
    expected = ((score_MN >= own_M[:, None] - 1e-6).sum(1)).tolist()
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    ranks = [row["rank"] for row in rows if (row["language"], row["direction"]) == ("de", "text_to_media")]
    assert ranks == expected


def test_late_fusion_is_chosen_on_val_for_a_dual_encoder_and_labelled(tmp_path, corpus, scored, capsys):
    folder = write_dual(tmp_path / "dual", "clip")
    on_val = scored(folder)
    assert on_val["settings"]["fused_on"] == "val" and len(on_val["notes"]) == 1
    assert "chosen on val" in capsys.readouterr().out
    on_train = scored(folder, "--split", "train", "--languages", "de")
    assert on_train["settings"]["fused_on"] == "val" and not any("late fusion" in note for note in on_train["notes"])
    plain = scored(folder, "--global-weight", 1)
    assert on_val["mean"]["sum_r"] >= plain["mean"]["sum_r"]
    rows = [row(number, "test") for number in range(8)]
    no_val = scored(folder, "--split", "test", data=write_rows(tmp_path / "other", rows))
    assert no_val["settings"] == settings_of(1.0, views=["detail", "short"])


def test_baselines_are_compared_in_one_table(tmp_path, model_folder, corpus, scored, capsys):
    folder = write_dual(tmp_path / "dual", "clip")
    report = scored(model_folder, "--baselines", f"embedded,{folder}", "--split", "train", "--languages", "de,en")
    arms = report["arms"]
    assert [(arm["name"], bool(arm["fusion"])) for arm in arms] == [
        (str(model_folder), True), ("embedded", False), ("embedded", True), (str(folder), False), (str(folder), True),
    ]  # fmt: skip
    assert arms[0]["mean"] == report["mean"]["sum_r"] and list(arms[0]["sum_r"]) == ["de", "en"]
    plain = scored("embedded", "--global-weight", 1, "--split", "train", "--languages", "de,en")
    assert arms[1]["mean"] == plain["mean"]["sum_r"]
    fused = scored(folder, "--split", "train", "--languages", "de,en")["mean"]
    assert fused["sum_r"] == arms[4]["mean"] and fused["intervals"]["sum_r"] == arms[4]["interval"]
    screen = capsys.readouterr().out
    assert "embedded, late fusion" in screen and report["settings"] == settings_of(0.3)


def test_the_comparison_is_written_into_the_card_with_what_leaving_out_the_views_costs(tmp_path, corpus, scored):
    run = run_of(tmp_path, write_model(tmp_path / "model", slots="views", read_start=1.0))
    (run / "best-st").mkdir()
    report = scored(run, "--baselines", "embedded", "--card", "--languages", "de")
    names = [arm["name"].removeprefix(str(run)) for arm in report["arms"]]
    assert names == ["", ", no descriptions", "embedded", "embedded"]
    bare = scored(run, "--slot-views", "none", "--languages", "de")["mean"]
    assert report["arms"][1]["interval"] == bare["intervals"]["sum_r"] != report["arms"][0]["interval"]
    for folder, loads in (("best", "LeccrModel.from_pretrained(HERE)"), ("best-st", "= SentenceTransformer(HERE)\n")):
        text = (run / folder / "README.md").read_text()
        assert f"| this model, no descriptions | {bare['sum_r']:.1f} [" in text and loads in text
    with pytest.raises(UsageError, match="is not a run"):
        scored(tmp_path / "model", "--baselines", "embedded", "--card")


def test_queries_are_translated_to_english_first(tmp_path, corpus, scored):
    folder, rows = write_dual(tmp_path / "dual", "clip"), [row(number, "val", languages=("pt",)) for number in range(6)]
    for item in rows:
        for caption in item["captions"][2:]:
            caption["text"] = f"Um gato preto dorme no sofá número {item['item_id'][-5]}."
    data = write_rows(tmp_path / "pt", rows)
    splits = Splits([data], (), (), "embedded")
    portuguese, english = splits.open("val").texts["pt"][0], splits.translated("val")["pt"][0]
    assert len(english) == len(portuguese) and all("black cat" in text for text in english)
    assert splits.translated("val")["en"] == splits.open("val").texts["en"]
    plain = scored(folder, "--global-weight", 1, data=data)
    translated = scored(f"translate:{folder}", "--global-weight", 1, data=data)
    assert translated["languages"]["en"] == plain["languages"]["en"]
    with pytest.raises(UsageError, match=r"--translate-queries embedded.*de"):
        scored(f"translate:{folder}", "--languages", "de")


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
    for name, message in ((tmp_path / "nothing", "does not exist"), (tmp_path, "without config")):
        with pytest.raises(UsageError, match=message):
            find_checkpoint(str(name))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match=r"has no .*best yet"):
        find_checkpoint(str(tmp_path))
    assert find_checkpoint(str(model_folder)).model_type == "leccr"


@each_example("mistakes_are_refused", "given, message")
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


def test_weights_chosen_on_the_test_split_say_so(tmp_path, model_folder, scored, capsys):
    report = scored(run_of(tmp_path, model_folder, split="test"))
    assert "selected on test" in capsys.readouterr().out
    assert "selected on test" in report["notes"][0]
