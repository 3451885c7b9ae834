"""Action codec: inverse pairs, clipping, coincident quantiles, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlarl.codec import ActionCodec, ActionStats, fit_action_stats


def codec_of(actions: np.ndarray, horizon: int = 8) -> ActionCodec:
    return ActionCodec(fit_action_stats(actions), horizon, channels=6, tensor_horizon=12)


def test_quantiles_are_those_of_the_whole_dataset() -> None:
    actions = np.arange(101, dtype=np.float64)[:, None] * np.array([1.0, -2.0])
    stats = fit_action_stats(actions)
    np.testing.assert_allclose(stats.low, [1.0, -198.0])
    np.testing.assert_allclose(stats.high, [99.0, -2.0])


def test_decode_inverts_encode_within_the_quantiles() -> None:
    random = np.random.default_rng(0)
    codec = codec_of(random.normal(size=(500, 3)))
    low, high = codec.stats.low, codec.stats.high
    actions = (low + (high - low) * random.random((5, 8, 3))).astype(np.float32)
    encoded, mask = codec.encode(actions)
    assert encoded.dtype == torch.float32
    assert encoded.shape == mask.shape == (5, 12, 6)
    np.testing.assert_allclose(codec.decode(encoded), actions, atol=1e-6)


def test_padding_is_zero_and_masked() -> None:
    random = np.random.default_rng(1)
    codec = codec_of(random.normal(size=(50, 3)))
    encoded, mask = codec.encode(random.normal(size=(2, 8, 3)))
    assert mask.sum() == 2 * 8 * 3
    assert mask[:, :8, :3].all()
    assert torch.equal(mask, codec.mask(2))
    assert encoded[~mask].abs().max() == 0


def test_a_shorter_chunk_masks_the_steps_it_lacks() -> None:
    codec = codec_of(np.random.default_rng(1).normal(size=(50, 3)))
    _, mask = codec.encode(np.zeros((2, 5, 3)))
    assert mask[:, :5, :3].all()
    assert not mask[:, 5:].any()


def test_both_directions_clip_and_the_decoder_clips_policies() -> None:
    codec = ActionCodec(ActionStats(np.float32([-2.0]), np.float32([4.0])), 1, 1, 1)
    encoded, _ = codec.encode(np.array([[[-50.0]], [[50.0]], [[1.0]]]))
    assert encoded.flatten().tolist() == [-1.0, 1.0, 0.0]
    decoded = codec.decode(torch.tensor([[[-9.0]], [[9.0]], [[0.0]]]))
    assert decoded.flatten().tolist() == [-2.0, 4.0, 1.0]


def test_coincident_quantiles_map_to_zero_and_back_to_the_constant() -> None:
    actions = np.random.default_rng(2).normal(size=(40, 2))
    actions[:, 1] = 0.7
    codec = ActionCodec(fit_action_stats(actions), 4, 3, 4)
    encoded, _ = codec.encode(actions[:4][None])
    assert encoded[0, :, 1].abs().max() == 0
    junk = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(codec.decode(junk)[0, :, 1], np.float32(0.7))


def test_statistics_round_trip_through_plain_values() -> None:
    stats = fit_action_stats(np.random.default_rng(3).normal(size=(30, 2)))
    again = ActionStats.from_dict(stats.to_dict())
    np.testing.assert_array_equal(again.low, stats.low)
    np.testing.assert_array_equal(again.high, stats.high)


def test_bad_actions_and_statistics_are_refused() -> None:
    codec = codec_of(np.random.default_rng(4).normal(size=(30, 2)))
    with pytest.raises(ValueError, match=r"\[B, h, 2\]"):
        codec.encode(np.zeros((1, 8, 3)))
    with pytest.raises(ValueError, match=r"1\.\.8"):
        codec.encode(np.zeros((1, 9, 2)))
    with pytest.raises(ValueError, match="NaN"):
        codec.encode(np.full((1, 8, 2), np.nan))
    with pytest.raises(ValueError, match="NaN"):
        codec.decode(torch.full((1, 12, 6), float("inf")))
    with pytest.raises(ValueError, match="do not fit"):
        ActionCodec(codec.stats, horizon=13, channels=6, tensor_horizon=12)
    with pytest.raises(ValueError, match="exceeds"):
        ActionStats(np.float32([1.0]), np.float32([0.0]))
    with pytest.raises(ValueError, match="lack"):
        ActionStats.from_dict({"low": [0.0]})
    with pytest.raises(ValueError, match="M > 0"):
        fit_action_stats(np.zeros((0, 2)))
