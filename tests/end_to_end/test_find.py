"""From photographs to answers, as a user goes there without training: captions, shards, index, queries."""

import json
from pathlib import Path

import pytest

from stages import index, search
from stages.retrieval.index_reader import Generation
from tests.conftest import run_stage

pytest.importorskip("skimage", reason="the sample photos come with scikit-image")
# what each query must find first, in six languages
QUERIES = {
    "chelsea.png": "a cat|eine Katze|un chat|un gato|一只猫|猫",
    "coffee.png": "a cup of coffee|eine Tasse Kaffee|une tasse de café|una taza de café|一杯咖啡|コーヒーカップ",
    "motorcycle_left.png": "a motorcycle|ein Motorrad|une moto|una motocicleta|一辆摩托车|オートバイ",
    "rocket.jpg": "a rocket|eine Rakete|une fusée|un cohete|火箭|ロケット",
}


def test_six_languages_find_what_the_sample_photos_show(tmp_path, capsys):
    corpus, folder, file = tmp_path / "corpus", tmp_path / "index", tmp_path / "queries.txt"
    queries = {query: name for name, texts in QUERIES.items() for query in texts.split("|")}
    for name in (("captions", "--samples"), ("pack",)):
        done = run_stage("--stage", *name, "--output", corpus)
        assert done.returncode == 0, done.stderr
    assert index.main(["--checkpoint", "embedded", "--data", str(corpus), "--output", str(folder)]) == 0
    assert len(Generation.open(folder)) == 9
    file.write_text("\n".join(queries), encoding="utf-8")
    capsys.readouterr()
    assert search.main(["--index", str(folder), "--queries", str(file), "-k", "1", "--json"]) == 0
    results = map(json.loads, capsys.readouterr().out.splitlines())
    first = {result["query"]: Path(result["hits"][0]["item_id"]).name for result in results}
    assert first == queries
