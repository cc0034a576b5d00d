import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stages.retrieval import keys as vector_keys
from stages.retrieval.keys import Keys

KEYS = st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3)), max_size=20)


def table(keys):
    corpora, ids = zip(*keys, strict=True) if keys else ((), ())
    return pa.table({"corpus": pa.array(corpora, pa.string()), "item_id": pa.array(ids, pa.string())})


@given(KEYS, KEYS, st.randoms(use_true_random=False))
def test_it_is_what_a_dictionary_would_be(keys, asked, random):
    present_N = np.array([random.random() < 0.7 for _ in keys], bool)
    wanted = {}
    for number, key in enumerate(keys):
        if present_N[number]:
            wanted.setdefault(key, number)
    found = Keys(table(keys), present_N)
    assert [found.get(key) for key in [*keys, *asked]] == [wanted.get(key) for key in [*keys, *asked]]
    assert [found.key(number) for number in range(len(keys))] == keys


def test_keys_of_one_hash_are_told_apart(monkeypatch):
    keys = [("a", "1"), ("a", "2"), ("b", "1")]
    monkeypatch.setattr(vector_keys, "hash", lambda key: 7, raising=False)
    found = Keys(table(keys), np.ones(3, bool))
    assert [found.get(key) for key in keys] == [0, 1, 2] and found.get(("b", "2")) is None
