"""A search engine of a few coloured squares, with the interface of `stages.retrieval.engine.Index`."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from pipeline.errors import UsageError
from stages.retrieval.engine import Hit, Query
from stages.retrieval.filters import Filters

EVIL = "<script>window.hit=1</script>.jpg"
ITEMS = {  # colour, words for it, and what was written about it
    "red.jpg": ((220, 30, 30), "red rot rouge červená 红 أحمر", "A red square."),
    "green.jpg": ((30, 180, 40), "green grün vert zelená 绿 أخضر", "A green square."),
    "blue.jpg": ((40, 60, 220), "blue blau bleu modrá 蓝 أزرق", "A blue square."),
    EVIL: ((120, 120, 120), "grey grau", "<img src=x onerror=window.hit=2> ${7*7} {{7*7}}"),
    "plain.jpg": ((250, 250, 250), "white weiß", ""),
}
NO_FILTERS = Filters()


class FakeFinder:
    """`call_s`: seconds that a call takes. `calls`: sizes of the calls so far."""

    space = SimpleNamespace(languages="German, English and French", tags=frozenset(("de", "en", "fr")))

    def __init__(self, corpora=None, call_s=0.0):
        self.corpora = {"squares": Path("/nowhere/squares")} if corpora is None else corpora
        self.splits = ["test", "train"]
        self.facets = {
            "split": {"test": 4, "train": 1},
            "camera": {"X100": 1},
            "place": {"Ulm": 1},
            "year": {"24": 1},
        }
        self.call_s = call_s
        self.calls, self.refreshes, self.trouble = [], 0, None
        self._lock = threading.Lock()

    def __len__(self):
        return len(ITEMS)

    def refresh(self):
        self.refreshes += 1
        if self.trouble:
            raise self.trouble
        return False

    def find(self, queries, k=10, *, offset=0, hybrid=None, filters=NO_FILTERS):
        for name, values in (("corpus", self.corpora), ("split", self.splits)):
            if getattr(filters, name) not in (None, *values):
                raise UsageError(f"{name}: the index has {', '.join(values)}")
        with self._lock:
            self.calls.append(len(queries))
            for query in queries:
                if query.words == "bug":
                    raise ZeroDivisionError("at /nowhere/secret.py")
                if query.words == "refuse":
                    raise UsageError("/nowhere/index cannot answer 'refuse'")
            time.sleep(self.call_s)
            return [self._hits(query, k, filters, offset) for query in queries]

    def record(self, corpus, item_id):
        view, text = "short", ITEMS[item_id][2]
        texts = [{"view": view, "text": text}] if text else []
        known = {"taken": "2024-07-31T18:05:00", "camera": "X100", "place": None}
        return {"texts": texts, "uri": str(self.corpora[corpus] / item_id), **known}

    def note(self, query):
        return "This looks like Czech" if "č" in query else ""

    def similar(self, corpus, item_id, k=10):
        return self._hits(Query(picture=self.picture(corpus, item_id, 4)), k, NO_FILTERS, 1)

    def picture(self, corpus, item_id, side):
        if corpus not in self.corpora or item_id not in ITEMS:
            raise KeyError(corpus, item_id)
        return Image.new("RGB", (side, side), ITEMS[item_id][0])

    def _hits(self, query, k, filters, offset=0):
        if query.words == "nothing":
            return []
        scored = sorted((-self._score(query, item), item) for item in ITEMS)
        allowed = filters.media_type != "video" and filters.split != "train"
        best = scored[offset : offset + k] if allowed else []
        return [
            Hit(
                rank, -score, item, next(iter(self.corpora)), f"/nowhere/{item}", "test", "image",
                "short" if ITEMS[item][2] else "", ITEMS[item][2], "picture",
            )
            for rank, (score, item) in enumerate(best, offset + 1)
        ]  # fmt: skip

    def _score(self, query, item):
        colour, words, _ = ITEMS[item]
        score = float(bool(set(query.words.lower().split()) & set(words.split())))
        if query.picture:
            mean = np.asarray(query.picture.convert("RGB"), np.float32).mean((0, 1))
            score += 1 - float(np.abs(mean - colour).mean()) / 255
        return score
