"""Every package that is imported is declared, and every file that is not Python is shipped."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_architecture import imports

OURS = {"examples", "pipeline", "stages", "model", "tests", "bench", "beam_runner", "leccr", "setup"}
# The user installs these, or they live in another environment.
OPTIONAL = {"vllm", "dask", "distributed", "wandb", "datatrove", "distilabel", "nemo_curator", "ray"}


@pytest.fixture(scope="module")
def declared():
    """Distributions that setup.py names, in lower case."""
    names = re.findall(r'"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(?:[<>=~!][^"]*)?"', (ROOT / "setup.py").read_text("utf-8"))
    return {name.lower().replace("_", "-") for name in names}


def test_every_imported_package_is_declared(declared):
    distributions = importlib.metadata.packages_distributions()
    missing = set()
    for folder in ("pipeline", "stages", "model", "tests", "bench", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in (
                {module.split(".")[0] for module in imports(path)} - OURS - OPTIONAL - set(sys.stdlib_module_names)
            ):
                candidates = {found.lower().replace("_", "-") for found in distributions.get(name, [name])}
                if not candidates & declared:
                    missing.add((name, str(path.relative_to(ROOT))))
    assert not missing, "\n".join(map(str, sorted(missing)))


def test_the_wheel_has_every_file(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    shipped = [
        name for name in listed if Path(name).parts[0] in ("pipeline", "stages", "model") and (ROOT / name).exists()
    ]
    for name in (*shipped, "setup.py", "pyproject.toml", "README.md", "LICENSE", "beam_runner.py", "leccr.py"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*build, tmp_path / "source"], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("leccr-*.whl")
    assert {*shipped, "leccr.py", "beam_runner.py"} <= set(zipfile.ZipFile(wheel).namelist())
