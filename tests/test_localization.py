"""Localization: the vision tower learns where things are, nothing else moves, seeds decide all."""

import numpy as np
import pytest
import torch

from learners.localization import LocalizationTrainer
from vlarl.config.schema import LocalizationConfig
from vlarl.data.grounding import GroundingSet
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA

SCENES = 256


@pytest.fixture(scope="module")
def scenes() -> GroundingSet:
    """One bright square on gray, at another place in each view; sometimes there is none."""
    random = np.random.default_rng(0)
    images, places = {}, np.full((SCENES, 2, 1, 2), np.nan, np.float32)
    for view, camera in enumerate(("ego", "cam_right_wrist")):
        frames = np.full((SCENES, 64, 64, 3), 90, np.uint8)
        for scene in range(SCENES):
            if view == 1 and scene % 4 == 0:
                continue
            row, column = random.integers(0, 56, 2)
            frames[scene, row : row + 8, column : column + 8] = (250, 130, 20)
            places[scene, view, 0] = (column + 4) / 64, (row + 4) / 64
        images[camera] = frames
    return GroundingSet(images, ("carrot",), places)


def make_model() -> QwenVLA:
    torch.manual_seed(0)
    contract = tabletop_contract()
    return build("tiny", contract, channel_bounds_codec(contract))


def test_tower_learns_where_the_square_is(scenes):
    model = make_model()
    before = {name: [p.detach().clone() for p in part] for name, part in model.parts().items()}
    config = LocalizationConfig(steps=240, batch_size=16, learning_rate=1e-2)
    trainer = LocalizationTrainer(model, config, scenes, seed=0)
    seen = scenes.visible
    with torch.no_grad():
        blind, _ = trainer.predict(np.arange(64))
    trainer.train()
    with torch.no_grad():
        found, visibility = trainer.predict(np.arange(64))
    truth = torch.from_numpy(scenes.places[:64])
    mask = torch.from_numpy(seen[:64])
    error = (found - truth).abs()[mask].mean()
    assert error < 0.8 * (blind - truth).abs()[mask].mean()
    assert ((visibility > 0) == mask).float().mean() > 0.9
    for name, part in model.parts().items():
        same = all(torch.equal(p, q) for p, q in zip(part, before[name], strict=True))
        assert same == (name != "vision"), name


def test_shifted_scenes_show_the_square_where_they_say(scenes):
    trainer = LocalizationTrainer(make_model(), LocalizationConfig(steps=1), scenes, seed=0)
    indices = np.arange(100, 200)
    images, places = trainer._shifted(indices, np.random.default_rng(0))
    moved = 64 * (places.numpy() - scenes.places[indices])[:, :, 0]
    found = 0
    for view, frames in enumerate(images.values()):
        square = frames[..., 0] == 250
        # Only a square that is wholly in view has its center where it seems to be.
        for row in np.flatnonzero(square.sum(axis=(1, 2)) == 64):
            y, x = np.argwhere(square[row]).mean(axis=0) + 0.5
            assert (x, y) == pytest.approx((64 * places[row, view, 0]).tolist(), abs=1e-3)
            found += 1
    assert found > 100
    seen = moved[np.isfinite(moved)]
    assert np.abs(seen).max() == pytest.approx(2, abs=1e-3)
    assert len(np.unique(seen.round(2))) == 5


def test_the_seed_decides_everything(scenes):
    config = LocalizationConfig(steps=3, batch_size=8)
    errors = [LocalizationTrainer(make_model(), config, scenes, seed=1).train() for _ in range(2)]
    assert errors[0] == errors[1]


def test_tokens_of_a_view_depend_on_that_view_alone(scenes):
    model = make_model()
    images = {name: each[1:3] for name, each in scenes.images.items()}
    with torch.no_grad():
        ego, wrist = model.view_tokens(model.processor.pixels(images, 2))
        changed = images | {"cam_right_wrist": 255 - images["cam_right_wrist"]}
        ego_again, wrist_again = model.view_tokens(model.processor.pixels(changed, 2))
    assert torch.equal(ego, ego_again)
    assert not torch.allclose(wrist, wrist_again)


def test_a_stop_ends_after_the_step(scenes):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 2

    trainer = LocalizationTrainer(
        make_model(), LocalizationConfig(steps=9, batch_size=8), scenes, seed=1
    )
    assert np.isfinite(trainer.train(stop=stop))
    assert len(asked) == 2
