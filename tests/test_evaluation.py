import dataclasses
import random

import numpy as np
import pytest
from fake_policy import FakePolicy

from actors import player
from actors.episodes import held_out_starts, swapped_starts
from actors.evaluation import EvaluationRequest, evaluate, write_videos
from actors.player import play
from envservers import task_groups
from envservers.counting import TASKS, CountingSuite, success_step
from envservers.held_out import HELD_OUT
from envservers.inprocess import InprocessClient
from envservers.task_groups import TaskGroups
from vlarl.errors import EnvServerError, UserError

ENVS, LENGTH = 3, 10


def clients(count=2, **options):
    return [InprocessClient(CountingSuite(ENVS, LENGTH, **options)) for _ in range(count)]


def request(episodes=17, **options):
    return EvaluationRequest(episodes, HELD_OUT, **options)


def test_every_start_is_played_once_and_judged_by_its_own_task():
    result = evaluate(FakePolicy(), clients(), request()).summary
    assert result["episodes"] == 17
    assert [(row["task"], row["seed"]) for row in result["outcomes"]] == [
        (TASKS[i % 2], HELD_OUT + i) for i in range(17)
    ]
    for row in result["outcomes"]:
        goal = success_step(row["seed"], row["task"], LENGTH)
        assert row["success"] == (goal <= LENGTH)
        assert row["steps"] == min(goal, LENGTH)


def test_a_group_stands_for_its_tasks(monkeypatch):
    monkeypatch.setattr(task_groups, "groups_of", lambda suite: TaskGroups({"pair": TASKS[:2]}))
    asked = evaluate(FakePolicy(), clients(), request(6, tasks=("pair",))).summary
    assert asked == evaluate(FakePolicy(), clients(), request(6, tasks=TASKS[:2])).summary


@pytest.mark.parametrize("episodes", [1, 5, 40])
def test_any_number_of_episodes_fits(episodes):
    assert evaluate(FakePolicy(), clients(), request(episodes)).summary["episodes"] == episodes


def test_policy_always_sees_all_slots_of_a_client():
    policy = FakePolicy()
    evaluate(policy, clients(), request(7))
    assert {n for _, n, _ in policy.calls} == {ENVS}
    assert not any(explore for explore, _, _ in policy.calls)


def test_outcomes_do_not_depend_on_who_answers_first(monkeypatch):
    """The actions of every episode are the same, however the answers of servers arrive."""

    def acted(shuffled):
        log = {}
        servers = clients()
        for client in servers:
            submit = client.submit_step
            client.submit_step = lambda ids, actions, record=False, c=client, s=submit: (
                [
                    log.setdefault((int(c.seeds[i]), int(c.steps[i])), a.tobytes())
                    for i, a in zip(ids, actions, strict=True)
                ],
                s(ids, actions, record),
            )[1]
            receive = client.receive

            def spy(c=client, r=receive):
                answer = r()
                c.seeds = getattr(c, "seeds", np.zeros(ENVS, int))
                c.steps = getattr(c, "steps", np.zeros(ENVS, int))
                c.seeds[answer.env_ids], c.steps[answer.env_ids] = answer.seed, answer.step
                return answer

            client.receive = spy
        if shuffled:
            order = random.Random(1)
            monkeypatch.setattr(
                player,
                "wait_ready",
                lambda asked, timeout: [order.choice(asked)] if asked and timeout is None else [],
            )
        evaluate(FakePolicy(), servers, request(12))
        return log

    first = acted(shuffled=False)
    assert len(first) >= 12
    assert acted(shuffled=True) == first


def test_failed_server_plays_its_episodes_again():
    servers = clients(2, raise_at=0)
    servers[0] = InprocessClient(CountingSuite(ENVS, LENGTH, raise_at=2))
    replaced = []

    def restart(index):
        replaced.append(index)
        servers[index] = clients(1)[0]
        return servers[index]

    broken = evaluate(FakePolicy(), servers, request(), restart=restart).summary
    assert replaced == [0]
    assert broken == evaluate(FakePolicy(), clients(), request()).summary


def test_a_server_that_keeps_failing_is_named():
    servers = clients(1, raise_at=1)
    with pytest.raises(EnvServerError, match="env server 0 failed once more"):
        play(
            FakePolicy(),
            servers,
            held_out_starts(TASKS, 2, HELD_OUT),
            restart=lambda index: clients(1, raise_at=1)[0],
            max_restarts=1,
        )


def test_first_episodes_are_filmed_step_by_step(tmp_path):
    result = evaluate(FakePolicy(), clients(), request(9, videos=2))
    steps = [row["steps"] for row in result.summary["outcomes"][:2]]
    assert [len(film.frames) for film in result.films] == steps
    files = write_videos(result, tmp_path, "sft")
    assert [file.name for file in files] == ["sft_0.gif", "sft_1.gif"]
    assert all(file.stat().st_size for file in files)


def test_swap_keeps_the_scene_and_tells_another_task():
    starts = held_out_starts(("a", "b", "c"), 12, HELD_OUT)
    swapped = swapped_starts(starts, ("a", "b", "c"))
    assert [s.seed for s in swapped] == [s.seed for s in starts]
    pairs = {(own.task, told.task) for own, told in zip(starts, swapped, strict=True)}
    assert len(pairs) == 6
    assert all(own != told for own, told in pairs)
    with pytest.raises(UserError, match="two tasks"):
        swapped_starts(starts[:1], ("a",))


def test_swapped_evaluation_judges_both_tasks():
    result = evaluate(FakePolicy(), clients(), request(10, swap=True)).summary
    for row in result["outcomes"]:
        assert {row["task"], row["named"]} == set(TASKS)
        named = success_step(row["seed"], row["named"], LENGTH)
        own = success_step(row["seed"], row["task"], LENGTH)
        assert row["named_success"] == (named <= LENGTH)
        if own <= row["steps"]:
            assert row["own_success"]


@pytest.mark.parametrize(("episodes", "seed"), [(0, HELD_OUT), (4, HELD_OUT - 1)])
def test_wrong_requests_are_refused(episodes, seed):
    wrong = dataclasses.replace(request(), episodes=episodes, seed=seed)
    with pytest.raises(UserError):
        evaluate(FakePolicy(), clients(), wrong)
