import pytest

from model.config import LeccrConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slot_init", "ones"),
        ("description_encoder", "none"),
        ("num_slots", -1),
        ("slot_layers", 0),
        ("dropout", 1.5),
        ("global_weight", -0.1),
        ("init_temperature", 0.0),
    ],
)
def test_a_value_out_of_its_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: expected"):
        LeccrConfig(**{name: value})


def test_it_is_saved_and_loaded_whole(tmp_path):
    spec = {"kind": "tiny", "width": 8}
    config = LeccrConfig(media_encoder=spec, text_encoder=spec, num_slots=2, global_weight=0.3)
    config.save_pretrained(tmp_path)
    loaded = LeccrConfig.from_pretrained(tmp_path)
    assert (loaded.media_encoder, loaded.num_slots, loaded.global_weight) == (config.media_encoder, 2, 0.3)
    assert loaded.get_text_config() is loaded
