import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UsageError
from stages import search
from tests.conftest import ROOT
from tests.stages.indexed import write_indexed


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed")
    write_indexed(folder, 8)
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(stream, "PNG")
    (folder / "red.png").write_bytes(stream.getvalue())
    (folder / "queries.txt").write_text("rot\n\n  猫  \n", encoding="utf-8-sig")
    return folder


def run(home, capsys, *arguments):
    assert search.main(["--index", str(home / "index"), *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_each_result_has_a_line(home, capsys):
    lines = [line for line in run(home, capsys, "rot", "-k", 2).splitlines() if "nothing fits" not in line]
    assert lines[0] == "rot" and len(lines) == 5
    rank, score, where, path = lines[1].split()
    assert rank == "1" and -1 <= float(score) <= 1 and where.startswith("photos/item-") and path.startswith("(photos/")
    assert lines[2].strip().split(":")[0] in ("short", "detail", "caption")


def test_json_of_texts_a_file_and_a_picture(home, capsys):
    def ask(*arguments):
        return list(map(json.loads, run(home, capsys, *arguments, "--json", "-k", 3).splitlines()))

    rows = ask("blau", "--queries", home / "queries.txt")
    rows += ask(*(pictured := ("--image", home / "red.png"))) + ask("blau", "猫", *pictured)
    names = ["blau", "rot", "猫", red := str(home / "red.png"), f"{red} + blau", f"{red} + 猫"]
    assert [row["query"] for row in rows] == names
    assert len({hit["score"] for row in rows for hit in row["hits"][:1]}) == len(rows)  # neither part is ignored
    assert all(len(row["hits"]) == 3 and row["hits"][0]["rank"] == 1 for row in rows)
    assert rows[0]["hits"][0].keys() == {
        "rank", "score", "item_id", "corpus", "uri", "split", "media_type", "view", "text", "matched",
        "taken", "camera", "place", "moment_s", "fits",
    }  # fmt: skip


def test_the_results_are_drawn(home, tmp_path, capsys):
    run(home, capsys, "rot", "猫", "-k", 3, "--picture", tmp_path / "found.png")
    pixels = np.asarray(Image.open(tmp_path / "found.png").convert("RGB"))
    assert 300 < pixels.shape[0] < 500 and 400 < pixels.shape[1] < 700
    tile = pixels[50:200, 20:160].reshape(-1, 3)  # the first result, where a picture of three colours or more is
    assert len(np.unique(tile // 16, axis=0)) > 3
    with pytest.raises(UsageError, match="--picture"):
        search.main(["--index", str(home / "index"), "rot", "--picture", str(tmp_path / "none" / "found.png")])


def test_a_closed_pipe_ends_the_program_quietly(home, tmp_path):
    (tmp_path / "many.txt").write_text("rot\n" * 3_000, encoding="utf-8")
    command = [sys.executable, "-m", "stages.search", "--index", home / "index", "--queries", tmp_path / "many.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read().decode()
        assert process.wait() == 128 + signal.SIGPIPE and "Traceback" not in message


def test_mistakes(home, tmp_path):
    (tmp_path / "latin.txt").write_bytes("Bär".encode("latin-1"))
    (tmp_path / "no.png").write_bytes(b"text")
    (tmp_path / "empty.txt").write_text("\n \n")
    for arguments, message in (
        ([], "no query"),
        (["rot \udcff"], "not valid Unicode"),
        (["--queries", str(tmp_path / "empty.txt")], "no query"),
        (["--queries", str(tmp_path / "latin.txt")], "byte 1 is not UTF-8"),
        (["--queries", str(tmp_path / "none.txt")], "cannot be read: No such file"),
        (["--image", str(tmp_path / "no.png")], "not a picture"),
        (["rot", "--split", "moon"], "the index has train, val"),
    ):
        with pytest.raises(UsageError, match=message):
            search.main(["--index", str(home / "index"), *arguments])
    with pytest.raises(UsageError, match="does not exist"):
        search.main(["--index", str(tmp_path / "index"), "rot"])
