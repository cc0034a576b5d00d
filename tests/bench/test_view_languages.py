import pytest

from bench.study import LANGUAGES, Plan
from bench.view_languages import BOTH, REGIMES, TRANSLATED, make_corpus, view_regime
from pipeline.corpus.table import Table


@pytest.mark.parametrize("name", [view_regime(0.4), BOTH])
def test_the_texts_of_the_users_languages_are_views_or_translations(tmp_path, name):
    assert name in {regime.name for regime in REGIMES}
    corpus = make_corpus(tmp_path, 7, Plan(items=3, held_out=1), name)
    for row in Table(corpus, "training").rows():
        texts = {(text["language"], text["origin"]) for text in row["captions"]}
        origins = {"mt": name != view_regime(0.4), "mllm": name != TRANSLATED}
        expected = {(tag, origin) for tag in LANGUAGES for origin, has in origins.items() if has}
        assert texts == (expected if row["split"] == "train" else {(tag, "human") for tag in ("en", *LANGUAGES)})
