import re
import runpy

import yaml

from model.card import card
from tests.model.towers import picture, processor, tiny_model

RECALLS = {"r1": 10.0, "r5": 20.5, "r10": 30.25}
RECORD = {
    "settings": {"recipe": "scenes", "lr": 1e-3, "languages": ["de"], "data": ["/home/somebody/corpus"]},
    "corpora": [{"name": "my_corpus", "training": "abcdef0123456789"}],
    "tools": {"torch": "2.13.0"},
    "validation": {
        "step": 1200, "split": "val", "items": 300, "sum_r": 121.5, "chance": 10.7, "global_weight": 0.8,
        "recalls": {"de": {"text_to_media": RECALLS, "media_to_text": RECALLS, "sum_r": 121.5}},
    },
}  # fmt: skip


def test_card_has_scores_and_how_the_weights_were_selected():
    text = card(RECORD)
    front = yaml.safe_load(text.split("---")[1])
    assert front["language"] == ["de"] and front["library_name"] == "leccr" and front["license"] == "other"
    assert "| de | 10.0 | 20.5 | 30.2 | 10.0 | 20.5 | 30.2 | 121.5 |" in text
    assert "300 items of split `val`, with the weights of step 1,200" in text and "10.7" in text
    assert "weight 0.8" in text and "somebody" not in text
    assert "my\\_corpus" in text and "abcdef012345" in text and "lr: 0.001" in text


def test_card_has_the_comparison_with_other_models():
    def row(name, fusion=None):
        figures = {"sum_r": {"de": 320.04}, "intervals": {"de": [310, 330]}, "mean": 320.04, "interval": [310, 330]}
        return {"name": name, "fusion": fusion} | figures

    rows = [
        row("/home/somebody/run", {"pooling": "max"}),
        row("/home/somebody/run, no descriptions"),
        row("a/b", {"pooling": "max"}),
    ]
    text = card({**RECORD, "comparison": {"split": "test", "items": 1000, "arms": rows}})
    figures = "| 320.0 [310.0, 330.0] | 320.0 [310.0, 330.0] |"
    for name in ("this model", "this model, no descriptions", "a/b, late fusion"):
        assert f"\n| {name} {figures}\n" in text
    assert "1,000 items of split `test`" in text and "somebody" not in text


def test_label_comes_before_the_scores():
    assert "**chosen on test**" in card({**RECORD, "label": "chosen on test"})
    assert "Not validated yet" in card({name: RECORD[name] for name in ("settings", "corpora", "tools")})


def test_nothing_in_the_record_is_read_as_markup():
    hostile = "x`|<script>*\n# big"
    text = card({**RECORD, "corpora": [{"name": hostile, "training": "0" * 64}], "settings": {"recipe": "```\n# a"}})
    assert "<script>" not in text and "\n# big" not in text and text.count("```") == 6


def test_example_code_runs(tmp_path, monkeypatch, capsys):
    of = processor()
    tiny_model(vocabulary=of.vocabulary).save_pretrained(tmp_path)
    of.save_pretrained(tmp_path)
    picture(0).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", card(RECORD), re.DOTALL).group(1)
    (tmp_path / "use.py").write_text(code.replace("HERE", repr(str(tmp_path))))
    runpy.run_path(str(tmp_path / "use.py"))
    assert "tensor([[" in capsys.readouterr().out
