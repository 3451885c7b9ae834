"""Human hands: rotations, eigengrasps, and the 32 channels there and back."""

from __future__ import annotations

import json
from itertools import pairwise

import mujoco
import numpy as np
import pytest

from vlarl.data.hands import (
    Eigengrasps,
    Wrist,
    decode_hands,
    encode_hands,
    fit_eigengrasps,
    reconstruction_error,
)
from vlarl.rotations import angle_between, axis_angle_of, matrix_of

HALF_TURNS = np.pi * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8], [0, -0.8, 0.6]])


def vectors(count: int, largest: float = np.pi, seed: int = 0) -> np.ndarray:
    """Random axis-angle rotations of every size up to `largest`."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    return axis * largest * random.uniform(size=(count, 1))


def test_matrices_are_those_of_mujoco() -> None:
    for vector in vectors(50):
        angle = np.linalg.norm(vector)
        quaternion, expected = np.zeros(4), np.zeros(9)
        mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
        mujoco.mju_quat2Mat(expected, quaternion)
        np.testing.assert_allclose(matrix_of(vector), expected.reshape(3, 3), atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-9, 0.0])
def test_rotations_come_back(scale: float) -> None:
    given = scale * vectors(500)
    np.testing.assert_allclose(axis_angle_of(matrix_of(given)), given, atol=1e-12, rtol=1e-9)


def test_half_turns_come_back_up_to_their_sign() -> None:
    for given in HALF_TURNS:
        for near in (given, given * (1 - 1e-9)):
            found = axis_angle_of(matrix_of(near))
            assert min(np.abs(found - near).max(), np.abs(found + near).max()) < 1e-6


def test_angle_between_is_symmetric_and_counts_turns() -> None:
    first, second = matrix_of(vectors(100)), matrix_of(vectors(100, seed=1))
    np.testing.assert_allclose(angle_between(first, second), angle_between(second, first))
    turned = first @ matrix_of(np.array([0.0, 0.3, 0.0]))
    np.testing.assert_allclose(angle_between(first, turned), 0.3)


def poses(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """[count, 45] hand poses that vary in so many directions, the first ones most."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(99).normal(size=(45, 45)))[0][:dimensions]
    sizes = 0.5 ** np.arange(dimensions)
    return 0.1 + (random.normal(size=(count, dimensions)) * sizes) @ directions


def mirrored(pose: np.ndarray) -> np.ndarray:
    """What a mirror in x makes of a hand pose: M R M, joint by joint."""
    mirror = np.diag([-1.0, 1.0, 1.0])
    rotations = matrix_of(pose.reshape(-1, 15, 3))
    return axis_angle_of(mirror @ rotations @ mirror).reshape(-1, 45)


def test_ten_components_hold_what_varies_in_ten_directions() -> None:
    right = poses(400, 10)
    grasps = fit_eigengrasps(np.empty((0, 45)), right)
    assert grasps.explained == pytest.approx(1.0)
    np.testing.assert_allclose(grasps.pose(grasps.weights(right, "right"), "right"), right)
    np.testing.assert_allclose(grasps.basis @ grasps.basis.T, np.eye(10), atol=1e-10)
    spread = grasps.weights(right, "right").std(axis=0)
    assert all(first >= second for first, second in pairwise(spread))


def test_left_hands_are_mirror_images_of_right_ones() -> None:
    right = poses(400, 10)
    one = fit_eigengrasps(np.empty((0, 45)), right)
    other = fit_eigengrasps(mirrored(right), np.empty((0, 45)))
    np.testing.assert_allclose(one.weights(right, "right"), one.weights(mirrored(right), "left"))
    np.testing.assert_allclose(other.basis, one.basis, atol=1e-8)


def test_more_components_lose_less_and_the_report_says_how_much() -> None:
    sides = {"left": mirrored(poses(300, 20)), "right": poses(300, 20, seed=1)}
    errors = []
    for components in (2, 5, 10, 20):
        report = reconstruction_error(
            sides, fit_eigengrasps(sides["left"], sides["right"], components)
        )
        assert 0 < report["explained_variance"] <= 1
        assert report["left/mean_angle"] <= report["left/p95_angle"]
        errors.append(report["left/mean_angle"] + report["right/mean_angle"])
    assert all(first > second for first, second in pairwise(errors))
    assert errors[-1] < 1e-6


def chunk(horizon: int = 16) -> tuple[dict[str, Wrist], dict[str, Wrist], dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    start, wrists, hands = {}, {}, {}
    for number, side in enumerate(("left", "right")):
        turns = matrix_of(vectors(horizon + 1, 3.0, seed=number))
        places = random.normal(size=(horizon + 1, 3))
        start[side] = Wrist(places[0], turns[0])
        wrists[side] = Wrist(places[1:], turns[1:])
        hands[side] = poses(horizon, 10, seed=number) if number else mirrored(poses(horizon, 10))
    return start, wrists, hands


def test_chunks_come_back() -> None:
    start, wrists, hands = chunk()
    grasps = fit_eigengrasps(mirrored(poses(300, 10)), poses(300, 10, seed=1))
    actions = encode_hands(start, wrists, hands, grasps)
    assert actions.shape == (16, 32)
    assert actions.dtype == np.float32
    again, joints = decode_hands(actions, start, grasps)
    for side in ("left", "right"):
        np.testing.assert_allclose(again[side].position, wrists[side].position, atol=1e-5)
        assert angle_between(again[side].rotation, wrists[side].rotation).max() < 1e-5
        np.testing.assert_allclose(joints[side], hands[side], atol=1e-5)


def test_actions_do_not_depend_on_where_the_world_has_its_origin() -> None:
    start, wrists, hands = chunk()
    grasps = fit_eigengrasps(np.empty((0, 45)), poses(300, 10))
    turn, shift = matrix_of(np.array([0.3, -1.0, 0.5])), np.array([1.0, 2.0, 3.0])

    def moved(group: dict[str, Wrist]) -> dict[str, Wrist]:
        return {s: Wrist(w.position @ turn.T + shift, turn @ w.rotation) for s, w in group.items()}

    np.testing.assert_allclose(
        encode_hands(moved(start), moved(wrists), hands, grasps),
        encode_hands(start, wrists, hands, grasps),
        atol=1e-5,
    )


def test_a_hand_that_rests_moves_nothing() -> None:
    start, wrists, hands = chunk(4)
    rests = {
        side: Wrist(np.tile(w.position, (4, 1)), np.tile(w.rotation, (4, 1, 1)))
        for side, w in start.items()
    }
    grasps = fit_eigengrasps(np.empty((0, 45)), poses(300, 10))
    actions = encode_hands(start, rests, hands, grasps)
    assert np.abs(actions[:, [*range(6), *range(16, 22)]]).max() < 1e-6
    assert np.abs(encode_hands(start, wrists, hands, grasps)[:, 16:22]).min(axis=0).max() > 0


def test_eigengrasps_travel_as_plain_values() -> None:
    grasps = fit_eigengrasps(np.empty((0, 45)), poses(300, 10))
    again = Eigengrasps.from_dict(json.loads(json.dumps(grasps.to_dict())))
    pose = poses(3, 10, seed=5)
    np.testing.assert_array_equal(again.weights(pose, "left"), grasps.weights(pose, "left"))


def test_mistakes_are_named() -> None:
    grasps = fit_eigengrasps(np.empty((0, 45)), poses(300, 10))
    start, wrists, hands = chunk(4)
    with pytest.raises(ValueError, match=r"right hand poses must be \[N, 45\]"):
        fit_eigengrasps(np.empty((0, 45)), np.zeros((9, 44)))
    with pytest.raises(ValueError, match="left hand poses contain NaN"):
        fit_eigengrasps(np.full((99, 45), np.nan), poses(99, 10))
    with pytest.raises(ValueError, match="10 hand poses do not determine 10 components"):
        fit_eigengrasps(np.empty((0, 45)), poses(10, 10))
    with pytest.raises(ValueError, match="the left hand is missing"):
        encode_hands({"right": start["right"]}, wrists, hands, grasps)
    with pytest.raises(ValueError, match=r"hand actions must be \[\.\.\., H, 32\]"):
        decode_hands(np.zeros((4, 31)), start, grasps)
    with pytest.raises(ValueError, match="allowed: left, right"):
        grasps.weights(hands["left"], "middle")
    with pytest.raises(ValueError, match="eigengrasps hold mean, basis, variance"):
        Eigengrasps.from_dict({"mean": [0.0]})
