"""What a run goes on from: safetensors and JSON, and the same bits when it comes back."""

import json

import pytest
import torch
from torch import nn

from vlarl.errors import CheckpointError
from vlarl.training_state import REST, TENSORS, read_state, write_state


def raw(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def same(one, other):
    if isinstance(one, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        return equal and torch.equal(raw(one), raw(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and type(one) is type(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def stored(state, folder):
    write_state(state, folder)
    return read_state(folder)


def test_every_kind_of_value_comes_back_as_it_was(tmp_path):
    flat = torch.arange(12.0)
    state = {
        "numbers": [0.1, 1e-300, float("inf"), float("nan"), 2**62, -3, True, None, "text"],
        "tuple": (0.9, (0.95,), []),
        "by_number": {0: {"exp_avg": torch.randn(3, 2)}, 1: {}, "1": torch.tensor(7.0)},
        "views": [flat[:6], flat[6:], flat.reshape(3, 4).T],
        "formats": [
            torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.bool, torch.int64)
        ],
        "empty": torch.empty(0, dtype=torch.uint8),
        "bits": torch.tensor([float("nan"), -0.0, 5e-324], dtype=torch.float64),
    }
    assert same(stored(state, tmp_path), state)
    assert {file.name for file in tmp_path.iterdir()} == {TENSORS, REST}
    json.loads((tmp_path / REST).read_text())


def trained(steps, network, optimizer, schedule, generator):
    for _ in range(steps):
        loss = network(torch.randn(4, 3, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


def made():
    torch.manual_seed(3)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return network, optimizer, schedule, torch.Generator().manual_seed(5)


def test_training_goes_on_to_the_same_bit(tmp_path):
    whole = trained(7, *made())
    parts = network, optimizer, schedule, generator = made()
    trained(4, *parts)
    state = {
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "generator": generator.get_state(),
    }
    write_state(state, tmp_path)
    weights = network.state_dict()
    again = made()
    back = read_state(tmp_path)
    again[0].load_state_dict(weights)
    for part, name in ((again[1], "optimizer"), (again[2], "scheduler")):
        part.load_state_dict(back[name])
    again[3].set_state(back["generator"])
    assert all(map(torch.equal, trained(3, *again), whole))


def test_a_pickle_of_an_older_version_is_one_message(tmp_path):
    with pytest.raises(CheckpointError, match="it is no checkpoint of a run"):
        read_state(tmp_path)
    torch.save({}, tmp_path / "training_state.pt")
    with pytest.raises(CheckpointError, match=r"older versions.*model\.checkpoint="):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"tensor": "nowhere"}',
        '{"map": 3}',
        '{"map": [], "list": []}',
        '{"code": []}',
        '{"list": []}',
        '{"map": [[[], 1]]}',
        '{"list": [' * 5000 + "]}" * 5000,
    ],
)
def test_damage_is_one_message(tmp_path, text):
    write_state({"a": torch.ones(2)}, tmp_path)
    (tmp_path / REST).write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(tmp_path)


def test_tensors_that_are_missing_or_cut_short_are_named(tmp_path):
    write_state({"a": torch.ones(200)}, tmp_path)
    data = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(data[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        read_state(tmp_path)
