"""LIBERO itself: skipped where its environment is not installed. Runs in its own interpreter."""

import pytest
from inside import run_inside

from envservers import environments

pytestmark = [
    pytest.mark.suites,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(environments.problem("libero")), reason=f"libero: {environments.problem('libero')}"
    ),
]
SOUP = "object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"
ON_STOVE = "spatial/pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate"
BEGIN = """
import numpy as np
from envservers.libero.suite import LiberoSuite
from envservers.libero.scene import Scene
from vlarl.types import EpisodeStart

def moves(steps, seed=0):
    random = np.random.default_rng(seed)
    moves = random.uniform(-1, 1, (steps, 7))
    moves[:, 3:6] *= 0.2
    return moves
"""


def inside(code: str) -> dict:
    """What `code` leaves in `answer`, run where the suite is installed."""
    return run_inside("libero", BEGIN, code)


def test_an_episode_is_what_its_start_says_whatever_was_before_in_its_slot_or_beside_it():
    answer = inside(f"""
    suite = LiberoSuite(3, image_size=32, tasks=[{ON_STOVE!r}])
    task = suite.spec.tasks[0]
    chunk = (moves(6) * [.05, .05, .05, .5, .5, .5, 1]).astype(np.float32)[None]
    def play(slot, seed):
        ids = np.array([slot])
        first = suite.reset(ids, [EpisodeStart(task, seed)])
        return first, suite.step(ids, chunk)
    same = []
    for seed in (3, 1_000_004):
        one = play(0, seed)
        # Another episode runs in between; two slots share the scene, step by step.
        play(1, seed + 1)
        two = play(2, seed)
        suite.reset(np.array([0, 1]), [EpisodeStart(task, 9), EpisodeStart(task, seed)])
        suite.step(np.array([0]), chunk)
        parts = []
        for half in (chunk[:, :3], chunk[:, 3:]):
            parts.append(suite.step(np.array([1]), half))
            suite.step(np.array([0]), half)
        for a, b in ((one[0], two[0]), (one[1], two[1]), (one[1], parts[-1])):
            same.append(bool(np.array_equal(a.state, b.state)))
            same += [bool(np.array_equal(a.images[v], b.images[v])) for v in a.images]
    other = play(0, 4)[0]
    answer = dict(same=same, differs=bool(np.any(other.images["ego"] != one[0].images["ego"])),
                  words=one[0].instruction[0])
    suite.close()
    """)
    assert all(answer["same"])
    assert answer["differs"]
    assert answer["words"] == "pick up the black bowl on the stove and place it on the plate"


def test_default_physics_is_liberos_own_bit_for_bit_and_its_resets_are_hard_ones():
    answer = inside(f"""
    from libero.libero.envs.env_wrapper import ControlEnv
    from libero.libero import get_libero_path
    ours = Scene({ON_STOVE!r}, "", 32, True, False)
    file = get_libero_path("bddl_files") + "/libero_spatial/" + {ON_STOVE!r}.partition("/")[2]
    theirs = ControlEnv(
        bddl_file_name=file + ".bddl", has_offscreen_renderer=False, use_camera_obs=False,
        hard_reset=True,
    )
    rest = np.array([0, 0, 0, 0, 0, 0, -1.0])
    apart = []
    for seed, official in ((5, None), (7, 3)):
        ours.begin(seed + 1, None)
        for move in moves(5):
            ours.step(move)
        ours.begin(seed, official)
        np.random.seed(seed)
        theirs.reset()
        if official is not None:
            theirs.set_init_state(ours._official_states()[official])
        for _ in range(10):
            theirs.step(rest)
        for move in moves(60, seed):
            ours.step(move)
            theirs.step(move)
        apart.append(float(np.abs(ours.data.qpos - theirs.env.sim.data.qpos).max()))
    answer = dict(apart=apart)
    """)
    assert answer["apart"] == [0.0, 0.0]


def test_tuned_physics_differs_by_the_solvers_tolerance_and_tuned_pictures_by_shadows():
    answer = inside(f"""
    scenes = [Scene({SOUP!r}, "", 64, tuned, tuned) for tuned in (True, False)]
    for scene in scenes:
        scene.begin(1_000_000, 0)
        for move in moves(10) * [1, 1, 0, 1, 1, 1, 1]:
            scene.step(move)
        scene.refresh()
    apart = float(np.abs(scenes[0].data.qpos - scenes[1].data.qpos).max())
    like = []
    for view in ("ego", "cam_right_wrist"):
        a, b = (scene.image(view).astype(float).ravel() for scene in scenes)
        like.append(float(np.corrcoef(a, b)[0, 1]))
    views = ("ego", "cam_right_wrist")
    seen = [scenes[0].image(view) for view in views]
    from contextlib import nullcontext
    from envservers.libero import camera
    camera.culled = lambda *anything: nullcontext()
    whole = [scenes[0].image(view) for view in views]
    answer = dict(apart=apart, like=like, culled=bool(np.array_equal(seen, whole)))
    """)
    assert 0 < answer["apart"] < 1e-4
    assert min(answer["like"]) > 0.9
    assert answer["culled"], "what is out of view changes no pixel"


def test_the_tuned_controllers_torques_are_robosuites_to_rounding():
    answer = inside(f"""
    import mujoco
    scene = Scene({SOUP!r}, "", 16, True, True)
    scene.begin(1_000_000, 0)
    robot, apart, strongest = scene.robot, [], 0.0
    for move in moves(20):
        for substep in range(25):
            mujoco.mj_step1(scene.model, scene.data)
            robot.control(move, policy_step=substep == 0)
            theirs = np.array(robot.controller.torques)
            apart.append(float(np.abs(scene._arm.torques() - theirs).max()))
            strongest = max(strongest, float(np.abs(theirs).max()))
            mujoco.mj_step2(scene.model, scene.data)
    before = robot.gripper.current_action.copy()
    scene.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    closed = robot.gripper.current_action - before
    stretched = np.diag([2.0, 4.0, 0.0])
    solved = scene._arm._solved(stretched, np.array([1.0, 1.0, 1.0]))
    answer = dict(apart=max(apart), strongest=strongest, closed=closed.tolist(),
                  solved=solved.tolist())
    """)
    assert answer["strongest"] > 5
    assert answer["apart"] < 1e-10 * answer["strongest"]
    assert answer["closed"] == pytest.approx([-0.25, 0.25])
    assert answer["solved"] == pytest.approx([0.5, 0.25, 0]), "a direction that nothing moves in"


def test_a_snapshot_goes_on_bit_for_bit_and_the_expert_achieves_the_goal():
    answer = inside(f"""
    suite = LiberoSuite(1, image_size=16, tasks=[{SOUP!r}])
    slot = np.zeros(1, np.int64)
    suite.reset(slot, [EpisodeStart({SOUP!r}, 1_000_000)])
    def until(most):
        steps, last = 0, None
        while steps < most and (last is None or not last.done[0]):
            last = suite.step(slot, suite.expert_actions(slot)[:, None])
            steps += 1
        return steps, last
    until(40)
    blob = suite.snapshot()
    one = until(240)
    suite.restore(blob)
    two = until(240)
    answer = dict(steps=[one[0], two[0]], success=bool(one[1].success[0]),
                  met=float(one[1].info["goals_met"][0]),
                  same=bool(np.array_equal(one[1].state, two[1].state)))
    suite.close()
    """)
    assert answer["success"]
    assert answer["met"] == 1
    assert answer["steps"][0] == answer["steps"][1]
    assert answer["same"]


def test_variants_change_what_they_say():
    answer = inside("""
    task = "goal/turn_on_the_stove"
    words = {}
    for variant in ("", "lan", "task"):
        suite = LiberoSuite(1, image_size=16, tasks=[task], variant=variant, scenes=1)
        words[variant] = suite.reset(
            np.zeros(1, np.int64), [EpisodeStart(task, 1_000_000)]
        ).instruction[0]
        suite.close()
    answer = words
    """)
    assert answer[""] == "turn on the stove"
    assert len(set(answer.values())) == 3
    assert all(answer.values())
