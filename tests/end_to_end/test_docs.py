"""The commands of the tutorial and of the recipes, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from pipeline.sources import open_source
from tests.conftest import ROOT, clean_environment
from tests.loopback import Loopback

SERVE_S = 40  # until a server is asked to end


@pytest.mark.torture
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", ["tutorial.md", "howto.md"])
def test_every_command_runs(page, tmp_path):
    text = (ROOT / "docs" / page).read_text("utf-8")
    (tmp_path / "PHOTOS").mkdir()
    for item in open_source(None, "samples").items():
        shutil.copy(item.uri, tmp_path / "PHOTOS")
    if views := re.search(r"```yaml\n(.*?)```", text, re.DOTALL):
        (tmp_path / "mine.yaml").write_text(views[1], "utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    script = re.sub(
        r"^(leccr serve .*)$", rf"timeout --signal INT {SERVE_S} \1 --port 0 || [ $? = 124 ]", script, flags=re.M
    )
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "leccr"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "leccr.py"} "$@"\n', "utf-8")
    program.chmod(0o755)
    with Loopback() as server:
        script = script.replace("http://HOST:8000/v1", server.url)
        environment = clean_environment(
            PATH=f"{program.parent}:{os.environ['PATH']}", XDG_DATA_HOME=str(tmp_path / "data"), PYTHONPATH=str(ROOT)
        )
        done = subprocess.run(
            ["bash", "-euxc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search("my favourite cup|mood", done.stdout), done.stdout[-3000:]
