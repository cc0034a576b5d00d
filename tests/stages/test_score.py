"""The program's parts: figures against the modules they come from, the table, the files, what it refuses."""

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
from stages.training.validation import label
from tests.model.towers import processor, tiny_model
from tests.stages.corpora import row, write_rows, write_training_corpus
from tests.stages.duals import write_dual


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def embedded(items=9, **counts):
    """By language as many texts an item as said; `fr` has none of the first two items."""
    ids = torch.randperm(items, generator=torch.Generator().manual_seed(3)) + 100
    texts = {}
    for number, (language, count) in enumerate(counts.items()):
        mine = ids[2:] if language == "fr" else ids
        texts[language] = unit(len(mine) * count, 5, seed=number + 1), mine.repeat(count)
    return Embedded(ids, unit(items, 5), unit(items, 2, 5, seed=9), texts)


def by_loops(split, language, weight):
    """Ranks in 64 bits and their queries' ids."""
    text_ME, items_M = split.texts[language]
    gallery = [place for place, number in enumerate(split.item_ids.tolist()) if number in items_M.tolist()]
    scores = torch.stack(
        [
            weight * text_ME.double() @ split.media_NE[place].double()
            + (1 - weight) * (text_ME.double() @ split.slots_NKE[place].double().T).amax(1)
            for place in gallery
        ],
        dim=1,
    )
    ids = split.item_ids[gallery]
    own = items_M[:, None] == ids
    there = [1 + int((line[~mine] >= line[mine].max()).sum()) for line, mine in zip(scores, own, strict=True)]
    back = [1 + int((line[~mine] >= line[mine].max()).sum()) for line, mine in zip(scores.T, own.T, strict=True)]
    return there, back, items_M.tolist(), ids.tolist()


def share(ranks, k):
    return pytest.approx(100 * sum(rank <= k for rank in ranks) / len(ranks))


def test_figures_are_of_the_ranks_of_each_language():
    split = embedded(de=2, fr=1, cs=1)
    result, _ = figures(split, 0.7)
    assert list(result["languages"]) == ["de", "fr", "cs"]
    for language, found in result["languages"].items():
        there, back, _, ids = by_loops(split, language, 0.7)
        for way, ranks in (("text_to_media", there), ("media_to_text", back)):
            assert [found[way][f"r{k}"] for k in (1, 5, 10)] == [share(ranks, k) for k in (1, 5, 10)]
            assert found["median_rank"][way] == np.median(ranks)
        sides = [*found["text_to_media"].values(), *found["media_to_text"].values()]
        assert found["sum_r"] == pytest.approx(sum(sides))
        assert (found["items"], found["texts"]) == (len(ids), len(there))
        low, high = found["intervals"]["sum_r"]
        assert low <= found["sum_r"] <= high and low < high
    every = result["languages"].values()
    assert result["mean"]["sum_r"] == pytest.approx(np.mean([found["sum_r"] for found in every]))
    assert result["mean"]["media_to_text"]["r5"] == pytest.approx(np.mean([it["media_to_text"]["r5"] for it in every]))
    assert result["languages"]["fr"]["chance"]["text_to_media"]["r1"] == pytest.approx(100 / 7)


def test_rank_variance_is_among_the_items_that_all_languages_have():
    split = embedded(de=2, fr=1)
    result, _ = figures(split, 0.7)
    shared = split.item_ids[2:]
    keep_M = torch.isin(split.texts["de"][1], shared)
    only = Embedded(
        shared,
        split.media_NE[2:],
        split.slots_NKE[2:],
        {"de": (split.texts["de"][0][keep_M], split.texts["de"][1][keep_M]), "fr": split.texts["fr"]},
    )
    ranks = []
    for language in ("de", "fr"):
        there, _, items, _ = by_loops(only, language, 0.7)
        ranks.append([np.mean([r for r, of in zip(there, items, strict=True) if of == i]) for i in shared.tolist()])
    assert result["mean_rank_variance"] == {"value": pytest.approx(np.var(ranks, axis=0).mean()), "items": 7}
    assert figures(embedded(de=1), 1.0)[0]["mean_rank_variance"] is None
    alike = embedded(de=1)
    alike.texts["en"] = alike.texts["de"]
    assert figures(alike, 1.0)[0]["mean_rank_variance"] == {"value": 0, "items": 9}


def test_the_table_says_what_the_figures_say():
    result, _ = figures(embedded(de=2, fr=1), 1.0)
    lines = format_table(result, ["fr: a note"]).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["language", "de", "fr", "mean", "chance"][:5]
    de = result["languages"]["de"]
    wanted = [
        *(f"{de['text_to_media'][f'r{k}']:.1f}" for k in (1, 5, 10)),
        f"{de['median_rank']['text_to_media']:.1f}",
        *(f"{de['media_to_text'][f'r{k}']:.1f}" for k in (1, 5, 10)),
        f"{de['median_rank']['media_to_text']:.1f}",
        f"{de['sum_r']:.1f}",
        f"{de['intervals']['sum_r'][0]:.1f}",
        "to",
        f"{de['intervals']['sum_r'][1]:.1f}",
    ]
    assert lines[2].split()[1:] == wanted
    assert lines[4].split()[7] == f"{result['mean']['sum_r']:.1f}"
    assert lines[6].startswith(f"mean rank variance over languages: {result['mean_rank_variance']['value']:.1f} over 7")
    assert lines[-1] == "fr: a note"
    alone = format_table(figures(embedded(de=1), 1.0)[0]).splitlines()
    assert [line.split()[0] for line in alone[1:]] == ["language", "de", "chance"]
    assert len({len(line.split("   95")[0]) for line in (lines[1], lines[2][: len(lines[1]) - 15])}) == 1


def test_every_query_has_a_row(tmp_path):
    split = embedded(de=2, fr=1)
    _, found = figures(split, 0.7)
    names = {number: f"item {number}" for number in split.item_ids.tolist()}
    captions = {
        language: [f"{language} {row}" for row in range(len(items))] for language, (_, items) in split.texts.items()
    }
    write_queries(tmp_path / "q.parquet", found, names, captions)
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    wanted = []
    for language in ("de", "fr"):
        there, back, items, ids = by_loops(split, language, 0.7)
        wanted += [
            (language, "text_to_media", caption, names[item], rank)
            for caption, item, rank in zip(captions[language], items, there, strict=True)
        ]
        wanted += [
            (language, "media_to_text", names[item], names[item], rank) for item, rank in zip(ids, back, strict=True)
        ]
    keys = ("language", "direction", "query_id", "item_id", "rank")
    assert [tuple(row[key] for key in keys) for row in rows] == wanted
    first = split.texts["de"]
    place = split.item_ids.tolist().index(int(first[1][0]))
    best = 0.7 * first[0][0] @ split.media_NE[place] + 0.3 * (split.slots_NKE[place] @ first[0][0]).max()
    assert rows[0]["score"] == pytest.approx(float(best), abs=1e-6)
    media = next(row for row in rows if row["direction"] == "media_to_text")
    place = split.item_ids.tolist().index(int(media["item_id"].split()[1]))
    mine = first[0][first[1] == split.item_ids[place]]
    scores = 0.7 * mine @ split.media_NE[place] + 0.3 * (mine @ split.slots_NKE[place].T).amax(1)
    assert media["score"] == pytest.approx(float(scores.max()), abs=1e-6)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    of = processor()
    tiny_model(of.vocabulary, global_weight=0.3).save_pretrained(folder)
    of.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("corpus"), 30, videos=2)


def run_of(folder, model_folder, split="val"):
    """A run as training leaves it."""
    (folder / "checkpoints").mkdir()
    (folder / "best").symlink_to(model_folder)
    best = {"split": split, "step": 40, "sum_r": 123.4, "global_weight": 0.3, "chance": 50.0, "recalls": {}}
    (folder / "record.json").write_text(
        json.dumps({"settings": {"slot_views": ["short"]}, "best": best, "label": label(split)})
    )
    return folder


def test_a_run_is_scored_from_its_best_weights(tmp_path, model_folder, corpus, capsys):
    run = run_of(tmp_path, model_folder)
    given = ["--data", str(corpus), "--output", str(tmp_path / "s.json"), "--per-query", str(tmp_path / "q.parquet")]
    assert score.main(["--checkpoint", str(run), *given, "--batch-size", "5"]) == 0
    screen = capsys.readouterr().out
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["checkpoint"] == {
        "name": str(run),
        "source": str(run / "best"),
        "model_type": "leccr",
        "selection": {"split": "val", "step": 40, "sum_r": 123.4, "global_weight": 0.3},
        "recipe": "",
        "method": "",
    }
    assert told["corpora"] == [{"name": corpus.name, "training": manifest_hash(corpus, "training")}]
    assert told["split"] == "val" and told["items"] == 9
    assert told["settings"] == {"global_weight": 0.3, "slot_views": ["short"], "batch_size": 5}
    assert list(told["languages"]) == ["de", "en", "fr"] and told["notes"] == []
    assert format_table(told) in screen and screen.startswith(f"{run} on val of {corpus}: 9 items, global weight 0.3\n")
    rows = pq.read_table(tmp_path / "q.parquet").to_pylist()
    for language, figures_ in told["languages"].items():
        for way in ("text_to_media", "media_to_text"):
            ranks = [row["rank"] for row in rows if (row["language"], row["direction"]) == (language, way)]
            assert figures_[way]["r5"] == share(ranks, 5) and figures_["median_rank"][way] == np.median(ranks)


def test_what_is_asked_for_beats_what_the_model_says(tmp_path, model_folder, corpus):
    def scored(*more):
        given = ["--checkpoint", str(model_folder), "--data", str(corpus), "--output", str(tmp_path / "s.json")]
        assert score.main([*given, *more]) == 0
        return json.loads((tmp_path / "s.json").read_text())

    plain = scored()
    assert plain["settings"] == {"global_weight": 0.3, "slot_views": [], "batch_size": 64}
    assert plain["checkpoint"]["selection"] is None
    asked = scored("--languages", "fr", "--global-weight", "1", "--split", "train", "--slot-views", "detail")
    assert asked["settings"]["global_weight"] == 1 and asked["settings"]["slot_views"] == ["detail"]
    assert list(asked["languages"]) == ["fr"] and asked["split"] == "train" and asked["items"] == 21
    assert asked["notes"] == ["fr: no human text in split train: scored on machine-made ones"]
    by_slots = scored("--global-weight", "0")
    assert by_slots["mean"] != plain["mean"]
    assert by_slots["languages"] != scored("--global-weight", "0", "--slot-views", "detail")["languages"]
    other_seed = scored("--global-weight", "0", "--seed", "1")["mean"]
    assert other_seed["sum_r"] == by_slots["mean"]["sum_r"]
    assert other_seed["intervals"] != by_slots["mean"]["intervals"]


def test_weights_chosen_on_another_split_say_so(tmp_path, model_folder, corpus, capsys):
    run_of(tmp_path, model_folder, split="test")
    assert score.main(["--checkpoint", str(tmp_path), "--data", str(corpus), "--output", str(tmp_path / "s")]) == 0
    assert "note: test chooses the best weights" in capsys.readouterr().out
    assert "test chooses the best weights" in json.loads((tmp_path / "s").read_text())["notes"][0]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_baseline_is_scored_on_the_same_split(tmp_path, kind, corpus, capsys):
    folder = write_dual(tmp_path / "dual", kind)
    assert score.main(["--checkpoint", str(folder), "--data", str(corpus), "--output", str(tmp_path / "s.json")]) == 0
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["checkpoint"]["model_type"] == kind and told["items"] == 9
    assert "9 items, only global similarity" in capsys.readouterr().out


def test_no_checkpoint_is_told(tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, told in (
        (tmp_path / "nothing", "there is no such folder, and no model of that name"),
        (tmp_path, "neither best/ nor config.json"),
    ):
        with pytest.raises(UsageError, match=told):
            find_checkpoint(str(name))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match=r"has no .*best yet"):
        find_checkpoint(str(tmp_path))
    assert find_checkpoint(str(model_folder)).model_type == "leccr"


def test_a_checkpoint_beside_the_best_has_not_been_selected(tmp_path, model_folder):
    run_of(tmp_path, model_folder)
    assert find_checkpoint(str(tmp_path / "best")).summary()["selection"]["step"] == 40
    (tmp_path / "other").symlink_to(model_folder)
    assert find_checkpoint(str(tmp_path / "other")).summary()["selection"] is None


def test_weights_of_other_sizes_are_told(tmp_path, model_folder):
    for file in model_folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = LeccrConfig.from_pretrained(tmp_path)
    config.embed_dim = 12
    config.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"cannot be loaded: .*got .* wanted"):
        find_checkpoint(str(tmp_path)).load()
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UsageError, match="cannot be loaded"):
        find_checkpoint(str(tmp_path)).load()


@pytest.mark.parametrize(
    "given, message",
    [
        (["--split", "tset"], r"tset.*train.*val"),
        (["--languages", "de,pl"], "pl.*split 'val' has texts in de, en, fr"),
        (["--global-weight", "1.5"], "--global-weight.*1.5"),
        (["--batch-size", "0"], "--batch-size.*0"),
        (["--seed", "-1"], "--seed.*-1"),
        (["--explain", "-1"], "--explain.*-1"),
        (["--explain", "2"], "needs --output"),
        (["--output", "."], "is a folder"),
        (["--slot-views", "foo"], "foo.*detail, short"),
        (["--output", "no/such/folder/s.json"], "--output.*does not exist"),
        (["--per-query", "no/q.parquet"], "--per-query.*does not exist"),
        (["--languges", "de"], "unrecognized arguments: --languges"),
    ],
)
def test_mistakes_are_refused(given, message, model_folder, corpus):
    with pytest.raises(UsageError, match=message):
        score.main(["--checkpoint", str(model_folder), "--data", str(corpus), *given])


def test_a_model_that_has_diverged_is_told(tmp_path, corpus):
    of = processor()
    model = tiny_model(of.vocabulary)
    model.media_head.weight.data.fill_(torch.nan)
    model.save_pretrained(tmp_path)
    of.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="not finite: the model has diverged"):
        score.main(["--checkpoint", str(tmp_path), "--data", str(corpus)])


def test_items_without_a_text_in_a_language_are_left_out_of_its_gallery(tmp_path, model_folder, corpus):
    rows = [row(number, "val") for number in range(8)]
    for some in rows[5:]:
        some["captions"] = [caption for caption in some["captions"] if caption["language"] != "fr"]
    folder = write_rows(tmp_path / "corpus", rows)
    output = tmp_path / "s.json"
    assert score.main(["--checkpoint", str(model_folder), "--data", str(folder), "--output", str(output)]) == 0
    told = json.loads(output.read_text())
    assert {name: found["items"] for name, found in told["languages"].items()} == {"de": 8, "en": 8, "fr": 5}
    assert told["mean_rank_variance"]["items"] == 5
    assert told["notes"] == ["fr: 5 of 8 items have a text, so its gallery is smaller and easier"]
