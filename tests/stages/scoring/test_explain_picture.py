"""The pictures: nothing runs out of them or over another text, whatever is shown; what no font has is told once."""

import itertools

import numpy as np
import pytest
from PIL import Image

from stages import score
from stages.scoring.explain import FEATURES, FRAMES, PATCHES, Explanation, Result, Seen
from stages.scoring.explain_fonts import Fonts
from stages.scoring.explain_picture import compose
from stages.scoring.explain_words import Word
from tests.model.towers import picture, processor, tiny_model
from tests.stages.corpora import write_training_corpus
from tests.stages.duals import write_dual

RANDOM = np.random.default_rng(0)
FRAMES_OF = {
    PATCHES: [picture(0, (40, 70))],
    FRAMES: [picture(number) for number in range(10)],
    FEATURES: list(RANDOM.normal(size=(12, 8))),
}


def seen(kind, text, slots=4):
    result = Result(0, "a/long/name/" * 20 + "x.jpg", 12_345, 0.5, (0.4, 0.6), True, FRAMES_OF[kind])
    words = [Word(word, place // 40, (place,)) for place, word in enumerate(text.split())]
    places = {PATCHES: 49, FRAMES: 10, FEATURES: 12}[kind]
    weights = RANDOM.dirichlet([0.3] * (len(words) + 1), slots)[:, :-1]
    return Seen(result, RANDOM.normal(size=slots), words, weights, kind, RANDOM.dirichlet([1.0] * places, slots), True)


def drawn(text, *shown, language="de"):
    results = [one.result for one in shown][:1] * 5
    return compose(Explanation(language, "c#1", text, 7, 20_000, 0.8, results, list(shown), ""), Fonts(print))


@pytest.mark.parametrize("kind", [PATCHES, FRAMES, FEATURES])
@pytest.mark.parametrize("slots", [1, 4, 12])
@pytest.mark.parametrize("description", ["", "a cat for $5 and $6", "words that go on " * 120])
def test_texts_keep_apart_and_on_the_page(kind, slots, description):
    figure = drawn("Ein Hund für $5 und $6. " * 40, seen(kind, description, slots), seen(PATCHES, "a dog", slots))
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for (one, left), (other, right) in itertools.combinations(boxes, 2):
        across = min(left.x1, right.x1) - max(left.x0, right.x0)
        along = min(left.y1, right.y1) - max(left.y0, right.y0)
        assert across < 3 or along < 4, (one, other)
    for axis in figure.axes:
        box = axis.get_tightbbox(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_letters_without_a_font_give_way_and_it_is_told_once():
    told = []
    fonts = Fonts(told.append)
    for text in ("\U0001e900\U0001e901", "\U0001e902"):  # Adlam, which hardly a machine has a font for
        assert fonts.shown(text, "c#1")[0] in ("c#1", text)
    assert len(told) <= 1
    assert fonts.shown("größer\n als", "c#1")[0] == "größer als"


def test_the_query_is_shown_and_the_best_slot_named():
    one = seen(PATCHES, "a cat")
    texts = [text.get_text() for text in drawn("Eine Katze", one).texts]
    assert "Eine Katze" in texts and "de · right item at rank 7 of 20,000" in texts and {"a", "cat"} <= set(texts)
    assert any(text.startswith(f"slot {one.order[0] + 1} of 4 fits the query best") for text in texts)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_training_corpus(tmp_path_factory.mktemp("corpus"), 12, videos=9)


def scored(folder, corpus, *more):
    given = ["--checkpoint", str(folder), "--data", str(corpus), "--output", str(folder / "s.json")]
    return score.main([*given, *more])


def test_score_draws_what_was_asked_for_and_takes_old_pictures_away(tmp_path, corpus, capsys):
    of = processor()
    tiny_model(of.vocabulary).save_pretrained(tmp_path)
    of.save_pretrained(tmp_path)
    assert scored(tmp_path, corpus, "--explain", "500", "--languages", "fr") == 0
    paths = sorted((tmp_path / "s-explain").iterdir())
    told = capsys.readouterr()
    assert f"note: --explain 500: the split has {len(paths)} queries: all are drawn" in told.err
    assert "explain" not in told.out and len(paths) == 6
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and image.width == 1400
    assert scored(tmp_path, corpus, "--explain", "3") == 0
    names = sorted(path.name for path in (tmp_path / "s-explain").iterdir())
    assert [name.split("-")[2] for name in names] == ["de", "en", "fr"]


def test_a_baseline_has_results_alone_and_says_why(tmp_path, corpus, capsys):
    assert scored(write_dual(tmp_path / "dual", "clip"), corpus, "--explain", "1") == 0
    assert "results and scores alone: a model of two towers" in capsys.readouterr().err
    assert len(list((tmp_path / "dual" / "s-explain").iterdir())) == 1
