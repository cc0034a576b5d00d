"""From photographs to answers, as a user goes there without training: captions, shards, index, queries."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment

pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
# what each query must find first, in six languages
QUERIES = {
    "chelsea.png": ("a cat", "eine Katze", "un chat", "un gato", "一只猫", "猫"),
    "coffee.png": (
        "a cup of coffee",
        "eine Tasse Kaffee",
        "une tasse de café",
        "una taza de café",
        "一杯咖啡",
        "コーヒーカップ",
    ),
    "motorcycle_left.png": ("a motorcycle", "ein Motorrad", "une moto", "una motocicleta", "一辆摩托车", "オートバイ"),
    "rocket.jpg": ("a rocket", "eine Rakete", "une fusée", "un cohete", "火箭", "ロケット"),
}


def stage(name, *arguments):
    command = [sys.executable, str(ROOT / "stages" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_six_languages_find_what_the_sample_photos_show(tmp_path, program):
    corpus, made, asked = tmp_path / "corpus", tmp_path / "index", tmp_path / "queries.txt"
    for name in ("captions", "pack"):
        done = program("--stage", name, "--output", corpus)
        assert done.returncode == 0, done.stderr
    told = stage("index", "--checkpoint", "embedded", "--data", corpus, "--output", made).stderr
    assert "9 items, 9 encoded now" in told
    asked.write_text("\n".join(query for queries in QUERIES.values() for query in queries), encoding="utf-8")
    lines = stage("search", "--index", made, "--queries", asked, "-k", 1, "--json").stdout.splitlines()
    first = {told["query"]: Path(told["hits"][0]["item_id"]).name for told in map(json.loads, lines)}
    assert first == {query: name for name, queries in QUERIES.items() for query in queries}
