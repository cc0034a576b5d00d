import json

import pytest

from bench.benchmarks import BEGIN, END, PUBLISHED, UNKNOWN, empty_rows, main
from tests.worked_examples import each_example


def scores(path, language="de", sum_r=470.25, **changed):
    selection = {"split": "val", "step": 1200, "sum_r": 480.0, "global_weight": 0.8}
    found = {
        "checkpoint": {"selection": selection, "recipe": "multi30k_de", "method": "corrected"},
        "split": "test",
        "languages": {language: {"sum_r": sum_r, "intervals": {"sum_r": [460.0, 480.125]}}},
        **changed,
    }
    path.write_text(json.dumps(found))
    return str(path)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    return path


def test_a_row_is_filled_and_filled_again_and_the_others_stay(page, tmp_path):
    main([scores(tmp_path / "a.json", sum_r=1.0), "--page", str(page)])
    main([scores(tmp_path / "b.json"), "--page", str(page)])
    text = page.read_text()
    assert "| multi30k_de | corrected | de | 470.2 | 460.0 to 480.1 | val, step 1,200 |  | 480.9 |" in text
    assert text.startswith("before\n") and text.endswith("after\n")
    assert text.count(UNKNOWN) == len(empty_rows()) - 1 == 3 * len(PUBLISHED) - 1
    main([scores(tmp_path / "c.json", language="fr"), "--page", str(page)])
    assert text.count("\n") + 1 == page.read_text().count("\n")  # a row that nobody foresaw


def test_weights_chosen_on_test_have_a_column_of_their_own(page, tmp_path):
    chosen_on_test = {
        "selection": {"split": "test", "step": 900, "sum_r": 475.0, "global_weight": 0.8},
        "recipe": "multi30k_de",
        "method": "faithful",
    }
    main([scores(tmp_path / "a.json", checkpoint=chosen_on_test), "--page", str(page)])
    in_training = "470.2 (460.0 to 480.1), step 900 | 480.9 |"
    assert f"| multi30k_de | faithful | de | {UNKNOWN} |  |  | {in_training}" in page.read_text()
    on_val = {**chosen_on_test, "selection": {"split": "val", "step": 800, "sum_r": 470.0, "global_weight": 0.8}}
    main([scores(tmp_path / "b.json", sum_r=468.0, checkpoint=on_val), "--page", str(page)])
    assert f"| multi30k_de | faithful | de | 468.0 | 460.0 to 480.1 | val, step 800 | {in_training}" in page.read_text()


@each_example("what_is_no_test_score_of_a_run_is_refused", "changed, message")
def test_what_is_no_test_score_of_a_run_is_refused(page, tmp_path, changed, message):
    with pytest.raises(SystemExit, match=message):
        main([scores(tmp_path / "a.json", **changed), "--page", str(page)])
