"""Returns: a hand-computed case, a brute-force sum, what cuts the bootstrap and what does not."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from vlarl.returns import generalized_advantage, normalized


def batch_of(**columns):
    """Columns are [N, T]; rows come out sorted by stream, then time."""
    shape = torch.as_tensor(columns["value"]).shape
    streams, horizon = shape
    window_end = torch.zeros(shape, dtype=torch.bool)
    window_end[:, -1] = True
    filled = {
        "stream": torch.arange(streams)[:, None].expand(shape),
        "time": torch.arange(horizon).expand(shape),
        "terminated": torch.zeros(shape, dtype=torch.bool),
        "truncated": torch.zeros(shape, dtype=torch.bool),
        "window_end": window_end,
        "next_value": torch.zeros(shape),
    } | {name: torch.as_tensor(column) for name, column in columns.items()}
    rows = {name: column.flatten() for name, column in filled.items()}
    return TensorDict(rows, [streams * horizon])


def random_batch(seed, streams=5, horizon=9):
    generator = torch.Generator().manual_seed(seed)
    value, reward, next_value = torch.randn(3, streams, horizon, generator=generator)
    ended = torch.rand(2, streams, horizon, generator=generator) < 0.2
    return batch_of(
        value=value, reward=reward, next_value=next_value, terminated=ended[0], truncated=ended[1]
    )


def brute_force(batch, gamma, lam, bootstrap):
    """The definition: a discounted sum of temporal differences, for one decision after another."""
    advantages = torch.zeros(len(batch))
    for row in range(len(batch)):
        weight, at = 1.0, row
        while True:
            step = batch[at]
            ends = bool(step["terminated"] | step["truncated"] | step["window_end"])
            dead = bool(step["terminated"]) or (bool(step["truncated"]) and not bootstrap)
            following = 0.0 if dead else step["next_value"] if ends else batch["value"][at + 1]
            advantages[row] += weight * (step["reward"] + gamma * following - step["value"])
            if ends:
                break
            weight, at = weight * gamma * lam, at + 1
    return advantages


def test_a_hand_computed_stream():
    """Success at the second of three decisions; the window then ends within the next episode."""
    batch = batch_of(
        value=[[0.5, 0.5, 0.25]],
        reward=[[0.0, 1.0, 0.0]],
        terminated=[[False, True, False]],
        next_value=[[9.0, 9.0, 0.75]],
    )
    advantage, target = generalized_advantage(batch, 0.5, 0.5, False)
    # deltas: 0 + 0.5 * 0.5 - 0.5 = -0.25; 1 - 0.5 = 0.5; 0 + 0.5 * 0.75 - 0.25 = 0.125
    assert advantage.tolist() == [-0.25 + 0.25 * 0.5, 0.5, 0.125]
    assert target.tolist() == [0.375, 1.0, 0.375]


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_streams_agree_with_the_definition(seed, bootstrap):
    batch = random_batch(seed)
    advantage, target = generalized_advantage(batch, 0.9, 0.8, bootstrap)
    torch.testing.assert_close(advantage, brute_force(batch, 0.9, 0.8, bootstrap))
    torch.testing.assert_close(target, advantage + batch["value"])


@pytest.mark.parametrize("bootstrap", [False, True])
def test_random_streams_agree_with_torchrls_estimate(bootstrap):
    """TorchRL's vectorized one, which shares no code with the one that is called here."""
    batch = random_batch(2)
    streams = batch.view(5, 9).unsqueeze(-1)
    ended = streams["terminated"] | streams["truncated"]
    done = ended | streams["window_end"]
    later = streams["value"].roll(-1, dims=1)
    expected = vec_generalized_advantage_estimate(
        0.9,
        0.8,
        streams["value"],
        torch.where(done, streams["next_value"], later),
        streams["reward"],
        done,
        streams["terminated"] if bootstrap else ended,
    )
    found = generalized_advantage(batch, 0.9, 0.8, bootstrap)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.flatten())


def final_value_matters(bootstrap=False, **ends):
    """Whether the value of the last observation reaches the returns."""
    found = [
        generalized_advantage(
            batch_of(value=[[0.0, 0.0]], reward=[[0.0, 0.0]], next_value=[[0.0, final]], **ends),
            0.9,
            0.9,
            bootstrap,
        )[0]
        for final in (0.0, 1.0)
    ]
    return not torch.equal(*found)


def test_what_cuts_the_bootstrap():
    assert final_value_matters()
    assert not final_value_matters(terminated=[[False, True]])
    assert not final_value_matters(truncated=[[False, True]])
    assert final_value_matters(truncated=[[False, True]], bootstrap=True)
    assert not final_value_matters(terminated=[[False, True]], bootstrap=True)


def test_streams_do_not_leak_into_each_other():
    one, other = random_batch(0), random_batch(0)
    other["reward"] = torch.where(other["stream"] == 2, 100.0, other["reward"])
    found, changed = (generalized_advantage(b, 0.9, 0.9, False)[0] for b in (one, other))
    assert torch.equal(found[one["stream"] != 2], changed[one["stream"] != 2])


def test_rows_may_come_interleaved_but_in_order():
    batch = random_batch(0)
    by_time = torch.argsort(batch["time"], stable=True)
    advantage, _ = generalized_advantage(batch, 0.9, 0.9, False)
    interleaved, _ = generalized_advantage(batch[by_time], 0.9, 0.9, False)
    assert torch.equal(interleaved, advantage[by_time])
    with pytest.raises(AssertionError, match="order of time"):
        generalized_advantage(batch[by_time.flip(0)], 0.9, 0.9, False)


def test_uneven_streams_are_refused():
    batch = random_batch(0)
    with pytest.raises(AssertionError, match="differ in their number"):
        generalized_advantage(batch[1:], 0.9, 0.9, False)
    with pytest.raises(AssertionError, match="window"):
        generalized_advantage(batch[batch["time"] < 8], 0.9, 0.9, False)


def test_normalized_advantages():
    scaled = normalized(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-6)
    assert float(scaled.std(correction=0)) == pytest.approx(1)
    assert not normalized(torch.full((3,), 5.0)).any()
