"""What several tests share: the folder of real data, photographs made on the spot, the program run as a user does."""

import contextlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

# Several workers share few cores, where a pool of threads in each makes all wait. Read when numpy and torch are loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Machines are noisy, and fsync waits for the disk.
settings.register_profile("project", deadline=None, max_examples=50)
settings.load_profile("project")


@pytest.fixture(scope="session")
def data():
    """Folder of real photos, clips and captions, where it lies beside the checkout."""
    if not DATA.is_dir():
        pytest.skip(f"no test data in {DATA}")
    return DATA


@pytest.fixture(scope="session")
def server():
    """A server of a multimodal model."""
    from tests.loopback import Loopback

    with Loopback() as started:
        yield started


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 4)
    return tmp_path / "photos"


def run_python(*argv, timeout=240, **more):
    """A Python program in a process of its own, as a user starts it: CompletedProcess."""
    command = [sys.executable, *map(str, argv)]
    environment = clean_environment(PYTHONPATH=str(ROOT), **more)
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def run_stage(*arguments):
    """Run beam_runner.py in this process, which costs no start of an interpreter: CompletedProcess."""
    import beam_runner

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = beam_runner.run([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """The processor, and the GPU where there is one."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


def command(*arguments):
    return [sys.executable, str(ROOT / "beam_runner.py"), *map(str, arguments)]


def clean_environment(**more):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LECCR_")}
    return {**environment, **more}


def make_photos(folder, count, size=(48, 40)):
    """`count` different small JPEGs, smooth like photos; returns their paths, in the order of their names."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        path = folder / f"photo-{number:05d}.jpg"
        coarse.resize(size, Image.Resampling.BICUBIC).save(path, quality=85)
        paths.append(path)
    return paths


def jpeg_bytes(size=(64, 48), seed=0):
    from PIL import Image

    stream = io.BytesIO()
    generator = random.Random(seed)
    Image.new("RGB", size, tuple(generator.randrange(256) for _ in range(3))).save(stream, "JPEG")
    return stream.getvalue()
