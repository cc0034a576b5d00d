"""The comparison runs, and what it says of recall holds; speeds are for a quiet machine to tell."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.torture
def test_quick():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "search.py"), "--quick", "--rows-each", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"recall@10: ours (\S+)", done.stdout)[1]) >= 0.95
    assert "20,000 rows of 256 values as float32, 10,000 items" in done.stdout and "index: ivf" in done.stdout
    assert len(re.findall(r"^  ours / (?:FAISS|NumPy): \d", done.stdout, re.MULTILINE)) == 4
