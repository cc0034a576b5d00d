"""The console script: every command is there, and no folder of the user's gets in its way."""

import subprocess
import sys
from pathlib import Path

import pytest

import leccr
from tests.conftest import ROOT, clean_environment


def test_every_program_is_a_command():
    programs = {path.stem for path in (ROOT / "stages").glob("*.py") if "__main__" in path.read_text("utf-8")}
    assert set(leccr.PROGRAMS) == programs - {"__init__"}
    assert set(leccr.STAGES) <= {path.stem for path in (ROOT / "stages").glob("*.py")}


def test_an_unknown_command_lists_those_there_are(capsys):
    assert leccr.main(["--version"]) == 0
    assert leccr.main(["capshuns"]) == 2
    printed = capsys.readouterr().err
    assert "capshuns" in printed and "captions" in printed


def test_a_mistake_in_a_command_has_its_exit_status(capsys, tmp_path):
    assert leccr.main(["verify", "--output", str(tmp_path / "missing")]) == 2
    assert leccr.main(["search", "--index", str(tmp_path / "missing"), "cat"]) == 2
    assert "missing" in capsys.readouterr().err


@pytest.mark.skipif(not Path(sys.executable).with_name("leccr").exists(), reason="leccr is not installed here")
def test_folders_of_the_user_shadow_nothing(tmp_path):
    for name in ("model", "pipeline", "stages", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a folder of the user')")
    command = [
        Path(sys.executable).with_name("leccr"),
        "captions",
        "--output",
        tmp_path / "corpus",
        "--limit",
        "1",
        "--samples",
    ]
    completed = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stderr
