"""Binding: an instruction's words find their objects, and the head asks for the right ones."""

import numpy as np
import pytest
import torch

from learners.binding import BindingTrainer, named_objects
from vlarl.config.schema import LocalizationConfig
from vlarl.data.grounding import GroundingSet
from vlarl.errors import ConfigError
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract

OBJECTS = ("spoon", "towel", "block", "green block", "gripper")


def make_trainer(sentences, places, steps=1, offsets=None):
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build("tiny", contract, channel_bounds_codec(contract))
    images = {
        camera.name: np.zeros((len(places), 64, 64, 3), np.uint8) for camera in contract.cameras
    }
    scenes = GroundingSet(images, OBJECTS, places, offsets)
    config = LocalizationConfig(binding_steps=steps, binding_batch_size=8)
    return BindingTrainer(model, config, scenes, sentences, seed=0)


def numbered_places(scenes):
    """Every entry tells scene, camera, object and axis apart."""
    return np.random.default_rng(0).uniform(0, 1, (scenes, 2, len(OBJECTS), 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("sentence", "names"),
    [
        ("put the spoon on the towel", ["spoon", "towel"]),
        ("the towel goes under the spoon", ["towel", "spoon"]),
        ("stack the green block on the block", ["green block", "block"]),
        ("wave", []),
    ],
)
def test_names_are_found_in_their_order(sentence, names):
    assert [OBJECTS[index] for index in named_objects(sentence, OBJECTS)] == names


def test_the_truth_is_that_of_the_named_objects_and_the_hand():
    places = numbered_places(3)
    sentences = ["put the spoon on the towel", "stack the green block on the block"]
    trainer = make_trainer(sentences, places)
    truth, seen = trainer._truth(np.array([2, 0]), np.array([1, 0]))
    expected = np.stack([places[2][:, [3, 2, 4]], places[0][:, [0, 1, 4]]])
    assert np.array_equal(truth.numpy(), expected)
    assert seen.all()


def test_one_sentence_answer_depends_on_the_sentence():
    trainer = make_trainer(
        ["put the spoon on the towel", "stack the green block on the block"],
        np.tile(numbered_places(1), (4, 1, 1, 1)),
        steps=80,
    )
    scene = np.array([0, 0])
    which = np.array([0, 1])
    target, _ = trainer._truth(scene, which)
    with torch.no_grad():
        before = (trainer.predict(scene, which)[0] - target).abs().mean()
    trainer.train()
    with torch.no_grad():
        after = (trainer.predict(scene, which)[0] - target).abs().mean()
    assert after < 0.2 * before


def test_sentences_that_name_different_numbers_are_refused():
    with pytest.raises(ConfigError, match="binding_steps"):
        make_trainer(["put the spoon on the towel", "lift the spoon"], numbered_places(2))


def test_offsets_are_learned_where_the_scenes_know_them():
    random = np.random.default_rng(1)
    offsets = np.tile(random.uniform(-0.3, 0.3, (1, len(OBJECTS), 3)), (4, 1, 1))
    trainer = make_trainer(
        ["put the spoon on the towel"],
        np.tile(numbered_places(1), (4, 1, 1, 1)),
        steps=80,
        offsets=offsets.astype(np.float32),
    )
    trainer.train()
    with torch.no_grad():
        _, found = trainer.predict(np.array([0]), np.array([0]))
    assert np.abs(found[0, :2].numpy() - offsets[0, :2]).max() < 0.03


def test_a_stop_ends_after_the_step():
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 2

    trainer = make_trainer(["put the spoon on the towel"], numbered_places(8), steps=9)
    assert np.isfinite(trainer.train(stop=stop))
    assert len(asked) == 2
