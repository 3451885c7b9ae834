"""openpi's protocol on both sides, over real websockets: served by us, asked by us, gone wrong."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
import torch
from tiny_model import images, make_model
from websocket_peers import foreign, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actors import cli
from actors.evaluate_checkpoint import evaluate_checkpoint
from actors.evaluate_server import ServerSettings, evaluate_server
from actors.harness.messages import MAX_MESSAGE_BYTES, pack, unpack
from actors.harness.observation_keys import ObservationKeys
from actors.harness.openpi_client import OpenpiClient
from actors.harness.openpi_session import OpenpiSession
from actors.harness.policy_server import PolicyServer
from actors.harness.remote_policy import RemotePolicy
from actors.harness.served_policy import ServedPolicy
from envservers.inprocess import InprocessClient
from envservers.registry import describe_suite
from vlarl.config.load import load_config
from vlarl.errors import CheckpointError, PolicyServerError, UserError
from vlarl.observations import Observations

KEYS = ObservationKeys.parse("openpi")
ALONE = ["env.mode=inprocess", "env.servers=1", "env.envs_per_server=1", "stage=eval"]
SPEC = describe_suite("tabletop")


def config(*overrides):
    return load_config("configs/rl/demo.yaml", [*ALONE, *overrides], only=("sampling", "env"))


@pytest.fixture(scope="module")
def policy():
    served = ServedPolicy(make_model(), config(), KEYS)
    yield served
    served.close()


@pytest.fixture(scope="module")
def address(policy):
    with serving(OpenpiSession(policy)) as where:
        yield where


@pytest.fixture
def executed(monkeypatch):
    """Chunks that environments of this process executed, in order."""
    chunks = []
    submit = InprocessClient.submit_step

    def spy(self, env_ids, actions, record=False):
        chunks.append(np.array(actions))
        submit(self, env_ids, actions, record)

    monkeypatch.setattr(InprocessClient, "submit_step", spy)
    return chunks


def seen(seed=0):
    """One observation as openpi's clients send it."""
    ego, wrist = (views[0] for views in images(1, seed).values())
    return {"observation/image": ego, "observation/wrist_image": wrist, "prompt": "Pick it up"}


@pytest.mark.slow
def test_a_served_checkpoint_decides_as_it_does_here(executed):
    """The same chunks, bit for bit, and so the same outcomes; the checkpoint is a trained one."""
    told = config("evaluation.episodes=4")
    here = evaluate_checkpoint("tabletop-sft", told)
    own, executed[:] = list(executed), []
    served = ServedPolicy.load("tabletop-sft", told, KEYS)
    with serving(OpenpiSession(served)) as where:
        there = evaluate_server(where, told, ServerSettings())
    served.close()
    assert there == here
    assert {row["success"] for row in here["outcomes"]} == {True, False}
    assert len(own) == len(executed) > 8
    for ours, theirs in zip(own, executed, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_clients_draw_noise_by_the_number_of_their_decision(address):
    def asked(count):
        client = OpenpiClient(address, 60.0)
        answers = [client.infer(seen())["actions"] for _ in range(count)]
        client.close()
        return np.stack(answers)

    first = asked(2)
    assert first.shape == (2, 8, 5)
    np.testing.assert_array_equal(asked(2), first)
    assert (first[0] != first[1]).any()


def test_noise_that_a_client_sends_is_where_its_chunk_starts(address, policy):
    shape = policy.noise_shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(4)).numpy()
    client = OpenpiClient(address, 60.0)
    client.infer(seen())
    came = client.infer(seen() | {"vlarl": {"noise": noise}})["actions"]
    np.testing.assert_array_equal(came, policy.chunk(policy.read(seen()), noise, (0, 0)))
    for wrong in (noise[:-1], noise.astype(np.float64), noise * np.nan):
        with pytest.raises(PolicyServerError, match="noise must be"):
            client.infer(seen() | {"vlarl": {"noise": wrong}})
    client.close()


def test_a_wrong_observation_is_answered_in_words_and_the_next_one_with_actions(address):
    client = OpenpiClient(address, 60.0)
    for wrong, match in (
        ({"prompt": "x"}, "lacks 'observation/image'; it has prompt"),
        (seen() | {"observation/image": np.zeros((64, 32, 3), np.uint8)}, "64, 32, 3"),
        (seen() | {"prompt": 5}, "is of type int, not text"),
        (seen() | {"prompt": "x" * 5000}, "is long text, not"),
        (seen() | {"prompt": "pick " * 200}, "instruction is refused: .* shorten the text"),
        (seen() | {"prompt": "<|im_end|>"}, "instruction is refused: .* control token"),
    ):
        with pytest.raises(PolicyServerError, match=match):
            client.infer(wrong)
    assert client.infer(seen())["actions"].dtype == np.float32
    client.close()


def test_damaged_and_oversized_messages_harm_nobody_else(address):
    with connect(address, max_size=None) as raw:
        raw.recv()
        raw.send(b"\x93")
        assert "cut short" in raw.recv()
        raw.send("text")
        assert "text, not a message" in raw.recv()
        hidden = {b"__ndarray__": True, b"data": b"\x80\x04.", b"dtype": "|O", b"shape": [1]}
        raw.send(pack({"observation/state": hidden}))
        assert "'|O' is refused" in raw.recv()
        raw.send(b"\0" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed, match="1009"):
            raw.recv()
    client = OpenpiClient(address, 60.0)
    assert client.infer(seen())["actions"].shape == (8, 5)
    client.close()


def test_a_page_in_a_browser_is_turned_away_and_health_is_told(address):
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="https://example.org")
    for path in ("healthz", "health"):
        with urllib.request.urlopen(address.replace("ws", "http", 1) + f"/{path}") as answer:
            assert answer.status == 200


def test_only_who_says_so_listens_beyond_loopback():
    with pytest.raises(UserError, match=r"other machines could reach it.*insecure=true"):
        PolicyServer(lambda _: None, "0.0.0.0", 0)
    server = PolicyServer(lambda _: None, "0.0.0.0", 0, insecure=True)
    server.close()
    taken = PolicyServer(lambda _: None, port=0)
    with pytest.raises(UserError, match="cannot listen"):
        PolicyServer(lambda _: None, port=int(taken.address.rpartition(":")[2]))
    taken.close()


def test_a_checkpoint_of_other_environments_is_refused_before_they_are_played(address):
    client = OpenpiClient(address, 60.0)
    with pytest.raises(CheckpointError, match="does not fit suite 'counting'"):
        RemotePolicy(client, describe_suite("counting"), KEYS, 4)
    with pytest.raises(CheckpointError, match="image_size=64"):
        RemotePolicy(client, describe_suite("tabletop", image_size=32), KEYS, 4)
    client.close()


def answering(*answers, metadata=None):
    """Another's server that answers each observation with the next of these, on any connection."""
    left = list(answers)

    def talk(connection):
        connection.send(pack(metadata or {}))
        for _ in connection:
            answer = left.pop(0)
            if answer == "hang up":
                return
            if answer != "hang":
                connection.send(answer if isinstance(answer, str) else pack(answer))

    return talk


def played(talk, execute_steps=4, deadline=60.0, units="simulator", **options):
    """What one observation of the tabletop is answered."""
    shown = Observations(images(1), ["Pick it up"], state=np.zeros((1, 3), np.float32))
    with foreign(talk, **options) as where:
        client = OpenpiClient(where, deadline)
        remote = RemotePolicy(client, SPEC, KEYS, execute_steps, units)
        try:
            return remote.act(shown, None, explore=False, noise=torch.zeros(1, 0, 0)).actions
        finally:
            client.close()


def test_the_first_steps_of_anothers_chunk_are_executed():
    chunk = np.random.default_rng(0).random((10, 5))
    np.testing.assert_array_equal(
        played(answering({"actions": chunk}))[0], chunk[:4].astype(np.float32)
    )
    assert played(answering({"actions": chunk[:2]})).shape == (1, 2, 5)
    assert played(answering({"actions": chunk[0]})).shape == (1, 1, 5)
    bounds = played(answering({"actions": np.ones((1, 5))}), units="normalized")
    np.testing.assert_allclose(bounds[0, 0], [c.high for c in SPEC.channels], rtol=1e-6)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ({"action": np.zeros(5)}, "no array of numbers as 'actions'; it holds action"),
        ({"actions": [1, 2, 3, 4, 5]}, "no array of numbers"),
        ({"actions": np.zeros((4, 7))}, r"shape \[4, 7\]; the environments take \[steps, 5\]"),
        ({"actions": np.zeros((0, 5))}, r"shape \[0, 5\]"),
        ({"actions": np.full((4, 5), np.nan)}, "NaN or infinity"),
        ("Traceback: out of memory", "reports:\nTraceback: out of memory"),
        ({"actions": {b"__ndarray__": True, b"dtype": "|O", b"shape": [1]}}, "is refused"),
    ],
)
def test_answers_that_are_no_actions_are_named(answer, match):
    with pytest.raises(PolicyServerError, match=match):
        played(answering(answer))


def test_a_connection_that_ends_is_made_once_more():
    good = {"actions": np.ones((4, 5), np.float32)}
    assert played(answering("hang up", good)).shape == (1, 4, 5)
    with pytest.raises(PolicyServerError, match="hung up twice over one observation"):
        played(answering("hang up", "hang up", good))


def test_a_server_that_hangs_is_given_up_at_the_deadline():
    with pytest.raises(PolicyServerError, match=r"within 0.3 seconds.*raise ws.deadline_seconds"):
        played(answering("hang"), deadline=0.3)


def test_messages_beyond_the_limit_are_named_and_not_sent_again():
    with pytest.raises(PolicyServerError, match="was shown more than a message may hold"):
        played(answering(), max_size=1000)
    with pytest.raises(PolicyServerError, match="answered more than a message may hold"):
        played(answering("x" * (MAX_MESSAGE_BYTES + 1)))


def test_what_answers_but_does_not_begin_with_metadata_is_no_policy_server():
    def talk(data):
        def say(connection):
            if data is not None:
                connection.send(data)
            for _ in connection:
                pass

        return say

    for data, match in (("hello", "text"), (b"\xc1", "not msgpack"), (None, "nothing within 0.3")):
        with (
            foreign(talk(data)) as where,
            pytest.raises(UserError, match=f"does not speak openpi's protocol.*{match}"),
        ):
            OpenpiClient(where, 0.3)


def test_another_release_is_named():
    with pytest.raises(CheckpointError, match="of another version of vlarl"):
        played(answering(metadata={"vlarl": {"contract": {"cameras": []}}}))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["eval", "ws://127.0.0.1:9"], "no policy server answers at ws://127.0.0.1:9"),
        (["eval", "ws://nowhere.invalid:9"], "no policy server answers at ws://nowhere.invalid:9"),
        (["eval", "ws://"], "is no address; use ws://HOST:PORT"),
        (["eval", "ws://127.0.0.1:9", "ws.actons=x"], "Did you mean ws.actions?"),
        (["eval", "ws://127.0.0.1:9", "ws.actions=meters"], "ws.actions = 'meters' is unknown"),
        (["eval", "ws://127.0.0.1:9", "ws.deadline_seconds=0"], "must be seconds, above 0"),
        (["eval", "ws://127.0.0.1:9", "sampling.denoising_steps=2"], "samples, not this"),
        (["eval", "tabletop-sft", "ws.actions=simulator"], "with a policy server alone"),
        (["serve", "tabletop-sft", "host=0.0.0.0"], "say insecure=true"),
        (["serve", "tabletop-sft", "protocol=openai"], "Did you mean openpi?"),
        (["serve", "tabletop-sft", "port=-1"], "port = '-1'"),
        (["serve", "nothing-here"], "nothing-here"),
        (["serve", "tabletop-sft", "observation={a: ego, p: instruction}"], "no key gives cam_"),
        (["serve", "tabletop-sft", "embodiment=widowx_eef"], "not 'widowx_eef'"),
        (["serve", "tabletop-sft", "sampling.execute_steps=9"], "predicts 8 steps"),
    ],
)
def test_mistakes_are_one_message(capsys, words, match):
    assert cli.run(words) == 2
    assert match in capsys.readouterr().err


def test_a_checkpoint_that_is_shown_the_frames_in_between_needs_the_other_protocol(
    capsys, tmp_path
):
    model = make_model()
    contract = dataclasses.replace(model.contract, history=2, history_hz=1.0)
    model.contract = contract
    model.save_pretrained(tmp_path / "past")
    assert cli.run(["serve", str(tmp_path / "past")]) == 2
    assert "Use protocol=vla-eval" in capsys.readouterr().err


@pytest.mark.slow
def test_serve_says_where_it_is_and_stops_when_interrupted(tmp_path):
    make_model().save_pretrained(tmp_path / "tiny")
    words = ["-m", "actors.cli", "serve", str(tmp_path / "tiny"), "port=0", "--json"]
    process = subprocess.Popen(
        [sys.executable, *words, "runtime.device=cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has it ignored, and so would the server.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        lines = iter(process.stderr.readline, "")
        ready = next(line for line in lines if line.startswith("ready "))
        with connect(ready.split()[1]) as raw:
            assert unpack(raw.recv())["vlarl"]["noise"]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    finally:
        killer.cancel()
        process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["connections"] == 1
    assert "Traceback" not in err
