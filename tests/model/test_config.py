import pytest

from model.config import LeccrConfig


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("slot_init", "ones", "normal or zero"),
        ("caption_vision_axis", "both", "features or tokens"),
        ("description_encoder", "none", "frozen or shared"),
        ("embed_dim", 0, "1 or more"),
        ("num_slots", -1, "0 or more"),
        ("slot_layers", 0, "1 or more"),
        ("dropout", 1.5, "from 0 to 1"),
        ("global_weight", -0.1, "from 0 to 1"),
        ("init_temperature", 0.0, "from 0.01 to 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(name, value, wanted):
    with pytest.raises(ValueError, match=f"{name}: got .*, wanted .*{wanted}"):
        LeccrConfig(**{name: value})


def test_it_is_saved_and_loaded_whole(tmp_path):
    spec = {"kind": "tiny", "width": 8}
    config = LeccrConfig(media_encoder=spec, text_encoder=spec, num_slots=2, global_weight=0.3)
    config.save_pretrained(tmp_path)
    loaded = LeccrConfig.from_pretrained(tmp_path)
    assert (loaded.media_encoder, loaded.num_slots, loaded.global_weight) == (config.media_encoder, 2, 0.3)
    assert loaded.get_text_config() is loaded
