"""The captioner of bench/photos.py: small, trained on the captions of split train, and served behind the chat API.

It is cross-fitted: the hash of a picture's bytes puts it into one of three folds, and the model that describes it was
trained on the other two. Pictures of val and test are described by one model as well, so that their descriptions are
like those of train. It learns from all five captions by people, also those that the other regimes withhold. Its server
knows a picture by that hash, as the stage sends small JPEGs as they are, and describes it by the features it was given.

    words → GRU → attention over the picture's cells → GRU → words

P pictures · B captions · T words · K beams · C cells · V words of the vocabulary
"""

import asyncio
import base64
import collections
import contextlib
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from bench.common import stage
from bench.photos_corpus import (
    ENGLISH,
    FUNCTION_WORDS,
    PIXELS,
    captioner_views,
    read_captions,
    read_splits,
    write_captions,
)
from model.encoders.embedded import GRID_MEAN, GRID_STD, GRID_WIDTH, Grid
from pipeline.corpus.table import Table, complete

FOLDS = 3
COMPONENTS = 192  # of cells, by their covariance
BASIS_PICTURES = 500  # of split train, whose covariance it is

WORD = re.compile(r"\w+(?:'\w+)?")
PAD, START, END, OTHER = range(4)  # what a vocabulary begins with
SPECIAL = ["<pad>", "<start>", "<end>", "<other>"]
LEAST, MOST_WORDS = 5, 20  # times that a word must occur; words of a caption
EMBEDDED, HIDDEN, ATTENDED, HEADS = 288, 352, 256, 4
EPOCHS, BATCH, RATE, SMOOTHING = 9, 96, 2e-3, 0.1
BEAMS, LENGTH_POWER, AVOIDED = 4, 0.7, 0.7  # AVOIDED: taken from a word's log-probability for each view that has it

MODEL, WINDOW = "photos-captioner", 256  # requests in flight: pictures that wait are described together
PROMPTS = {view: f"Describe this {{media}} in one sentence. ({view})" for view in captioner_views()}

Describer = Callable[[list[str]], list[list[str]]]  # from hashes of pictures to the captions of each, by view


def fold_of(picture_hash: str) -> int:
    """The fold of a picture, by the SHA-256 of its file: number of the model that has not seen it."""
    return int(picture_hash[:8], 16) % FOLDS


def encode(pictures: Sequence[bytes]) -> Tensor:
    """Tokens [P,1+C,GRID_WIDTH] of the embedded encoder, which sees the whole picture; the first is their mean."""
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (GRID_MEAN, GRID_STD))
    pixels = []
    for picture in pictures:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        small = image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC, reducing_gap=3.0)
        values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        pixels.append((values.view(PIXELS, PIXELS, 3).permute(2, 0, 1) / 255 - mean) / std)
    grid, few = Grid(GRID_WIDTH), 4  # of so many pictures at once, a core needs the least time for each
    with torch.inference_mode():
        stacked = torch.stack(pixels).contiguous(memory_format=torch.channels_last)
        return torch.cat([grid.features(part) for part in stacked.split(few)])


def make_features(data: Path, path: Path) -> dict[str, Any]:
    """The features of all pictures: names, hashes, cells [P,C,COMPONENTS] and means [P,GRID_WIDTH]; kept in a file."""
    if not path.exists():
        splits = read_splits(data)
        names = [name for of in splits.values() for name in of]
        read = [(data / "images" / name).read_bytes() for name in names[:BASIS_PICTURES]]
        cells = torch.cat([encode(read[at : at + 50])[:, 1:].flatten(0, 1) for at in range(0, len(read), 50)])
        values, vectors = torch.linalg.eigh(torch.cov(cells.T))
        basis = vectors[:, -COMPONENTS:] / values[-COMPONENTS:].mean().sqrt()
        parts, hashes = [], []
        for start in range(0, len(names), 100):
            read = [(data / "images" / name).read_bytes() for name in names[start : start + 100]]
            hashes += [hashlib.sha256(picture).hexdigest() for picture in read]
            tokens = encode(read)
            parts.append(((tokens[:, 1:] @ basis).half(), tokens[:, 0].half()))
        cells, means = (torch.cat(part) for part in zip(*parts, strict=True))
        save({"names": names, "hashes": hashes, "cells": cells, "means": means}, path)
    return load(path)


def save(state: Any, path: Path) -> None:
    """Write a file so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def load(path: Path) -> Any:
    """What `save` wrote."""
    return torch.load(path, weights_only=True)


def split_words(caption: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return WORD.findall(caption.lower())


class Captioner(nn.Module):
    """The next word after those before.

    Args:
        words: The vocabulary, SPECIAL first.
    """

    def __init__(self, words: Sequence[str]):
        super().__init__()
        self.words = list(words)
        self.embed = nn.Embedding(len(words), EMBEDDED)
        nn.init.normal_(self.embed.weight, std=EMBEDDED**-0.5)
        self.see_mean = nn.Sequential(nn.LayerNorm(GRID_WIDTH), nn.Linear(GRID_WIDTH, ATTENDED), nn.GELU())
        self.see_cells = nn.Sequential(nn.LayerNorm(COMPONENTS), nn.Linear(COMPONENTS, ATTENDED), nn.GELU())
        self.keys_values = nn.Linear(ATTENDED, 2 * ATTENDED)
        self.read = nn.GRU(EMBEDDED + ATTENDED, HIDDEN, batch_first=True)
        self.query = nn.Linear(HIDDEN, ATTENDED)
        self.write = nn.GRU(HIDDEN + ATTENDED, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN + ATTENDED, EMBEDDED)
        self.bias = nn.Parameter(torch.zeros(len(words)))
        self.drop, self.drop_more = nn.Dropout(0.3), nn.Dropout(0.5)

    def look(self, cells_BCD: Tensor, means_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the words are read from: the picture as a whole, keys and values [B,heads,1+C,width]."""
        mean_BA = self.drop(self.see_mean(means_BD.float()))
        seen = torch.cat([mean_BA[:, None], self.drop(self.see_cells(cells_BCD.float()))], 1)
        keys, values = self.keys_values(seen).unflatten(2, (2 * HEADS, -1)).transpose(1, 2).chunk(2, 1)
        return mean_BA, keys, values

    def forward(
        self, words_BT: Tensor, looked: Sequence[Tensor], states: Sequence[Tensor | None] = (None, None)
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [B,T,V] of the next words, and the states of both GRUs after the last word."""
        mean_BA, keys, values = looked
        picture = mean_BA[:, None].expand(-1, words_BT.shape[1], -1)
        read_BTH, first = self.read(torch.cat([self.drop(self.embed(words_BT)), picture], 2), states[0])
        query = self.query(read_BTH).unflatten(2, (HEADS, -1)).transpose(1, 2)
        attended = scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
        written, second = self.write(torch.cat([self.drop(read_BTH), attended], 2), states[1])
        vectors_BTE = self.out(self.drop_more(torch.cat([written, attended], 2)))
        return vectors_BTE @ self.embed.weight.T + self.bias, [first, second]

    @torch.inference_mode()
    @torch.autocast("cpu", torch.bfloat16)
    def describe(self, cells: Tensor, means: Tensor) -> list[list[str]]:
        """The captions of each picture, one for each view."""
        looked = self.look(cells, means)
        known = set(FUNCTION_WORDS.split())
        content = torch.tensor([number > OTHER and word not in known for number, word in enumerate(self.words)])
        used_PV = torch.zeros(len(cells), len(self.words))
        views = []
        for _ in PROMPTS:
            captions = self.search(looked, AVOIDED * used_PV)
            for row, caption in enumerate(captions):
                used_PV[row, caption] += 1
            used_PV *= content
            views.append([" ".join(self.words[number] for number in caption) for caption in captions])
        return [[f"{text.capitalize()}." for text in of] for of in zip(*views, strict=True)]

    def search(self, looked: Sequence[Tensor], penalties_PV: Tensor) -> list[list[int]]:
        """The best caption of each picture that beam search finds."""
        pictures, vocabulary = penalties_PV.shape
        looked = [of.repeat_interleave(BEAMS, 0) for of in looked]
        penalties = penalties_PV.repeat_interleave(BEAMS, 0)
        words = torch.full((pictures * BEAMS, 1), START)
        scores_PK = torch.tensor([0.0] + [-torch.inf] * (BEAMS - 1)).repeat(pictures, 1)
        states: Sequence[Tensor | None] = (None, None)
        first_of = torch.arange(pictures)[:, None] * BEAMS
        for _ in range(MOST_WORDS):
            logits, new = self(words[:, -1:], looked, states)
            logs = logits[:, 0].log_softmax(1) - penalties
            logs[:, [PAD, START, OTHER]] = -torch.inf
            logs.scatter_(1, words[:, -1:], -torch.inf)
            ended = (words[:, 1:] <= END).any(1)
            logs[ended] = -torch.inf
            logs[ended, PAD] = 0
            totals = scores_PK[:, :, None] + logs.view(pictures, BEAMS, vocabulary)
            scores_PK, places = totals.flatten(1).topk(BEAMS)
            origin = (places // vocabulary + first_of).flatten()
            words = torch.cat([words[origin], (places % vocabulary).view(-1, 1)], 1)
            states = [of[:, origin] for of in new]
            if (words[:, 1:] <= END).any(1).all():
                break
        lengths = (words > OTHER).sum(1).view(pictures, BEAMS) + 1
        best = (scores_PK / lengths**LENGTH_POWER).argmax(1)[:, None] + first_of
        return [[number for number in row if number > OTHER] for row in words[best.flatten()].tolist()]


def train(features: dict[str, Any], captions: dict[str, list[str]], names: set[str], fold: int) -> Captioner:
    """Train the model that does not see the pictures of a fold; `names` are the pictures of split train."""
    counts = collections.Counter(word for name in names for text in captions[name] for word in split_words(text))
    words = SPECIAL + sorted(word for word, count in counts.items() if count >= LEAST)
    number = {word: place for place, word in enumerate(words)}
    rows, texts = [], []
    for row, name in enumerate(features["names"]):
        for text in captions[name] if name in names and fold_of(features["hashes"][row]) != fold else ():
            rows.append(row)
            ids = [number.get(word, OTHER) for word in split_words(text)][:MOST_WORDS]
            texts.append([START, *ids, END, *[PAD] * (MOST_WORDS - len(ids))])
    sources, targets = torch.tensor(rows), torch.tensor(texts)
    lengths = (targets != PAD).sum(1)
    torch.manual_seed(fold)
    model = Captioner(words)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    steps = EPOCHS * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        began, losses = time.monotonic(), []
        # Captions of like length stand in one batch, up to chance.
        order = (lengths + 2 * torch.rand(len(rows))).argsort()
        batches = order.split(BATCH)
        for place in torch.randperm(len(batches)).tolist():
            chosen = batches[place]
            text, seen = targets[chosen, : lengths[chosen].max()], sources[chosen]
            with torch.autocast("cpu", torch.bfloat16):  # less than half the time where there are instructions for it
                logits, _ = model(text[:, :-1], model.look(features["cells"][seen], features["means"][seen]))
            loss = cross_entropy(
                logits.float().flatten(0, 1), text[:, 1:].flatten(), ignore_index=PAD, label_smoothing=SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.monotonic() - began
        print(f"fold {fold}, epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f} ({seconds:.0f} s)", flush=True)
    return model.eval()


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of captions, each with as many references, on words in lower case without punctuation."""
    from sacrebleu import corpus_bleu

    written = [" ".join(split_words(text)) for text in captions]
    columns = [[" ".join(split_words(text)) for text in texts] for texts in zip(*references, strict=True)]
    return float(corpus_bleu(written, columns, tokenize="none", force=True).score)


class ChatServer:
    """The OpenAI chat API over a function that describes pictures, given by the SHA-256 of their bytes.

    It answers all views at once; the prompt of a request says which of them is asked for.
    """

    def __init__(self, describe: Describer):
        self.describe = describe
        self.asked: dict[str, asyncio.Future[list[str]]] = {}
        self.waiting: asyncio.Queue[str] = asyncio.Queue()

    async def work(self) -> None:
        """Describe the pictures that have come in meanwhile."""
        while True:
            pictures = [await self.waiting.get()]
            while not self.waiting.empty():
                pictures.append(self.waiting.get_nowait())
            for picture, texts in zip(pictures, await asyncio.to_thread(self.describe, pictures), strict=True):
                self.asked[picture].set_result(texts)

    async def models(self, request: web.Request) -> web.Response:
        """The only model."""
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def chat(self, request: web.Request) -> web.Response:
        """Answer a request with one picture."""
        parts = (await request.json())["messages"][-1]["content"]
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        prompt = next(part["text"] for part in parts if part["type"] == "text")
        picture = hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()
        if picture not in self.asked:
            self.asked[picture] = asyncio.get_running_loop().create_future()
            self.waiting.put_nowait(picture)
        text = (await self.asked[picture])[list(PROMPTS.values()).index(prompt.replace("picture", "{media}"))]
        answer = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        name = request.headers.get("X-Request-Id", "")
        return web.json_response({"id": name, "object": "chat.completion", "model": MODEL, "choices": [answer]})


@contextlib.contextmanager
def served(describe: Describer) -> Iterator[str]:
    """Serve a function on the loopback interface, in a thread; yields the address."""

    async def serve() -> None:
        server, app = ChatServer(describe), web.Application(client_max_size=1 << 26)
        app.add_routes([web.get("/v1/models", server.models), web.post("/v1/chat/completions", server.chat)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        started.set()
        await server.work()

    address: list[str] = []
    started, loop = threading.Event(), asyncio.new_event_loop()
    threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True).start()
    if not started.wait(60):
        raise RuntimeError("the captioner's server has not started")
    yield address[0]


def make_models(data: Path, folder: Path) -> list[Captioner]:
    """The model of each fold, kept in a folder."""
    features = make_features(data, folder / "features.pt")
    captions, names = read_captions(data, ENGLISH), set(read_splits(data)["train"])
    models = []
    for fold in range(FOLDS):
        path = folder / f"fold{fold}.pt"
        if not path.exists():
            model = train(features, captions, names, fold)
            save({"words": model.words, "weights": model.state_dict()}, path)
        state = load(path)
        models.append(Captioner(state["words"]).eval())
        models[-1].load_state_dict(state["weights"])
    return models


def describe(hashes: Sequence[str], models: Sequence[Captioner], features: dict[str, Any]) -> list[list[str]]:
    """The captions of each picture, one for each view, by the model of its fold. A picture is known by its hash."""
    texts: dict[str, list[str]] = {}
    for fold, model in enumerate(models):
        of_fold = [name for name in hashes if fold_of(name) == fold]
        if of_fold:
            rows = [features["hashes"].index(name) for name in of_fold]
            texts |= zip(of_fold, model.describe(features["cells"][rows], features["means"][rows]), strict=True)
    return [texts[name] for name in hashes]


def make_corpus(data: Path, corpus: Path) -> Path:
    """Make a corpus whose descriptions are the captioner's, asked through its server. A finished one is left as it is.

    Items and captions are those of the other regimes. Features and models are kept in a folder next to the corpus.
    """
    if complete(corpus, "training"):
        return corpus
    models = corpus.with_name(f"{corpus.name}_models")
    fitted, features, views = make_models(data, models), load(models / "features.pt"), models / "views.yaml"
    views.write_text(json.dumps({name: {"prompt": text, "language": "en"} for name, text in PROMPTS.items()}), "utf-8")
    if not complete(corpus, "items"):
        write_captions(data, corpus)
    with served(lambda hashes: describe(hashes, fitted, features)) as url:
        stage("captions", corpus, "--mllm-url", url, "--views", views, "--window", WINDOW, "--strict")
    stage("pack", corpus, "--image-size", PIXELS)
    scores = [f"{view} {of:.1f}" for view, of in score(data, corpus).items()]
    print(f"BLEU-4 of the captioner on split val: {', '.join(scores)}", flush=True)
    return corpus


def score(data: Path, corpus: Path) -> dict[str, float]:
    """BLEU-4 of each view on split val, against all captions by people."""
    captions, names = read_captions(data, ENGLISH), set(read_splits(data)["val"])
    rows = [row for row in Table(corpus, "descriptions").rows() if row["item_id"] in names]
    by_view = {view: [row for row in rows if row["view"] == view] for view in PROMPTS}
    return {
        view: bleu([row["text"] for row in of], [captions[row["item_id"]] for row in of])
        for view, of in by_view.items()
    }
