"""Batches in parts, and the moving average of weights: the same steps as without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_supervised import CONFIG, Log, make_dataset, make_grounding, make_model

from learners.ema import WeightAverage
from learners.shares import Peers
from learners.supervised import SupervisedTrainer
from vlarl.config.schema import SupervisedConfig
from vlarl.data.conversations import ConversationSet
from vlarl.errors import CheckpointError

CONVERSATIONS = """\
{"messages": [{"role": "user", "content": "what is red?"},\
 {"role": "assistant", "content": "the cube"}]}
{"messages": [{"role": "user", "content": "what is on the table?"},\
 {"role": "assistant", "content": "a spoon, a towel, a carrot, and behind them a plate"}]}
"""


def trained(config: SupervisedConfig, conversations=None, until: int | None = None):
    dataset, log = make_dataset(), Log()
    model = make_model(dataset, awake=True)
    trainer = SupervisedTrainer(
        model, config, dataset, make_grounding(), 5, log, conversations=conversations
    )
    trainer.train(until)
    return trainer, log


def weights(trainer: SupervisedTrainer) -> torch.Tensor:
    return torch.cat(
        [p.detach().flatten() for part in trainer.model.parts().values() for p in part]
    )


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_batch_in_parts_takes_the_step_of_the_whole(tmp_path, micro_batch):
    """Answers of unequal length: a part counts by its tokens, not by its rows."""
    file = tmp_path / "talk.jsonl"
    file.write_text(CONVERSATIONS)
    config = replace(CONFIG, steps=4, grounding_batch_size=3, conversation_batch_size=2)
    found = []
    for parts in (0, micro_batch):
        talk = ConversationSet(file)
        found.append(trained(replace(config, micro_batch=parts), talk, until=1))
    (whole, log), (divided, other) = found
    for name, value in log.rows[1].items():
        if name != "steps_per_second":
            assert other.rows[1][name] == pytest.approx(value, rel=1e-4), name
    start = make_model(make_dataset(), awake=True)
    before = torch.cat([p.detach().flatten() for ps in start.parts().values() for p in ps])
    assert not torch.equal(weights(whole), before)
    # Adam turns a gradient of next to nothing into a whole step, whose sign rounding decides.
    gap = (weights(whole) - weights(divided)).abs()
    assert gap.mean() < 1e-6


def test_gradients_of_parts_add_up():
    """Before the optimizer, nothing hides a wrong share."""
    gradients = []
    for micro_batch in (0, 3):
        dataset = make_dataset()
        config = replace(CONFIG, micro_batch=micro_batch, grounding_batch_size=4)
        config = replace(config, optimizer=replace(config.optimizer, max_grad_norm=1e9))
        trainer = SupervisedTrainer(
            make_model(dataset, awake=True), config, dataset, make_grounding(), 5
        )
        trainer.train_step()
        found = [p.grad.flatten() for part in trainer.model.parts().values() for p in part
                 if p.grad is not None]  # fmt: skip
        gradients.append(torch.cat(found))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("size", "micro_batch", "world"), [(8, 0, 1), (8, 3, 2), (6, 4, 3)])
def test_every_row_is_computed_once(size, micro_batch, world):
    rows = [
        row
        for rank in range(world)
        for part in Peers(rank, world).parts(size, micro_batch)
        for row in range(size)[part]
    ]
    assert rows == list(range(size))


def test_rows_are_dealt_out_in_turns_over_several_groups():
    """Every row once, and as many for each process as its fair share of all of them."""
    sizes = (3, 5, 1, 1, 2)
    groups = list(zip(sizes, np.cumsum((0, *sizes[:-1])), strict=True))
    dealt = [[Peers(rank, 4).own(*group).tolist() for group in groups] for rank in range(4)]
    for group, size in enumerate(sizes):
        assert sorted(row for rows in dealt for row in rows[group]) == list(range(size))
    assert [sum(map(len, rows)) for rows in dealt] == [3, 3, 3, 3]


@pytest.mark.parametrize("world", [1, 3])
def test_trajectories_of_like_length_go_together(world):
    lengths = np.random.default_rng(0).integers(80, 1500, 48)
    groups = [Peers(rank, world).alike(lengths, 4) for rank in range(world)]
    rows = [row for own in groups for group in own for row in group]
    assert sorted(rows) == list(range(48))
    for own in groups:
        assert sum(map(len, own)) == 48 / world
        assert max(map(len, own)) <= 4
        assert all(lengths[group].min() >= 0.75 * lengths[group].max() for group in own)


def test_the_average_follows_the_weights():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    average = WeightAverage([weight], 0.75)
    with torch.no_grad():
        weight.copy_(torch.tensor([5.0, 2.0]))
    average.update()
    with average.in_place():
        assert weight.tolist() == [2.0, 2.0]
    assert weight.tolist() == [5.0, 2.0]


def test_a_resumed_average_is_that_of_the_whole_run(tmp_path):
    config = replace(CONFIG, steps=4, ema=0.5)
    whole, _ = trained(config)
    first, _ = trained(config, until=2)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    later = SupervisedTrainer(first.model, config, make_dataset(), None, 5)
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    later.train()
    assert torch.equal(weights(later), weights(whole))
    own = weights(whole)
    with whole.average.in_place(), later.average.in_place():
        assert torch.equal(weights(later), weights(whole))
        assert not torch.equal(weights(whole), own)
    without = SupervisedTrainer(first.model, replace(config, ema=0), make_dataset(), None, 5)
    with pytest.raises(CheckpointError, match="with an average"):
        without.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


def test_the_average_changes_no_step():
    config = replace(CONFIG, steps=3)
    plain, _ = trained(config)
    averaged, _ = trained(replace(config, ema=0.9))
    assert torch.equal(weights(plain), weights(averaged))
    assert np.isfinite(weights(averaged).numpy()).all()
