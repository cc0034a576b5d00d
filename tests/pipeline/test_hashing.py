"""What makes two things the same thing."""

from pipeline import hashing as identity
from pipeline.hashing import folder_hash


def test_a_folder_hash_tells_models_of_the_same_sizes_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE_BYTES", 1_000)
    monkeypatch.setattr(identity, "PIECE_BYTES", 100)
    weights = tmp_path / "model.safetensors"
    seen = set()
    for data in (b"a" * 900, b"a" * 899 + b"b", b"a" * 5_000, b"b" * 5_000, b"a" * 4_999 + b"b", b"b" + b"a" * 4_999):
        weights.write_bytes(data)
        seen.add(folder_hash(tmp_path))
    assert len(seen) == 6
    assert folder_hash(tmp_path) in seen
    weights.rename(tmp_path / "other.safetensors")
    assert folder_hash(tmp_path) not in seen
