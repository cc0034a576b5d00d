import numpy as np

from pipeline.sources.scenes.content import (
    FORMS,
    OPPOSITE,
    Sampler,
    draw_messages,
)


def sampled(count, videos=0.0, seed=0):
    return Sampler(np.random.default_rng(seed), videos).scenes(count)


def is_true(message, scene):
    """Whether a message is true of a scene, decided without the code that writes messages."""
    if not set(message.groups) <= set(scene.groups):
        return False
    if message.relation == "beside":
        if scene.relation != "left" or set(message.groups) != set(scene.groups):
            return False
    elif message.relation:
        here = scene.relation, scene.groups
        turned = OPPOSITE[scene.relation], tuple(reversed(scene.groups))
        if (message.relation, message.groups) not in (here, turned):
            return False
    if message.motion and (message.motion != scene.motion or message.groups[0] != scene.groups[scene.mover]):
        return False
    return message.background in ("", scene.background) and message.place in ("", scene.place)


def test_messages_are_true_of_different_forms_and_tell_scenes_apart():
    forms = set()
    rng = np.random.default_rng(2)
    for scene in sampled(400, 0.4, 1):
        messages = draw_messages(scene, rng, 3)
        assert len({message.form for message in messages}) == 3
        assert all(is_true(message, scene) for message in messages)
        forms |= {message.form for message in messages}
        for fact in ("motion", "place", "relation"):
            if getattr(scene, fact) and not (scene.motion and fact == "relation"):
                assert any(getattr(message, fact) not in ("", "beside") for message in messages)
    assert forms == set(FORMS)
