"""ManiSkill itself: skipped where its environment is not installed. Runs in its own interpreter."""

import pytest
from inside import run_inside

from envservers import environments

pytestmark = [
    pytest.mark.suites,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(environments.problem("maniskill")),
        reason=f"maniskill: {environments.problem('maniskill')}",
    ),
]
BEGIN = """
import numpy as np
from envservers.maniskill.suite import ManiSkillSuite
from vlarl.types import EpisodeStart
"""


def inside(code: str) -> dict:
    """What `code` leaves in `answer`, run where the suite is installed."""
    return run_inside("maniskill", BEGIN, code)


def test_tuned_pictures_have_a_tenth_of_the_triangles_and_look_the_same():
    answer = inside("""
    import sapien
    from envservers.maniskill import scene

    def look():
        suite = ManiSkillSuite(1, tasks=["PegInsertionSide"])
        first = suite.reset(np.array([0]), [EpisodeStart("PegInsertionSide-v1", 3)])
        bodies = [
            entity.find_component_by_type(sapien.render.RenderBodyComponent)
            for entity in suite._simulator(0).place._env.scene.sub_scenes[0].entities
        ]
        shapes = [shape for body in bodies if body is not None for shape in body.render_shapes]
        mesh = sapien.render.RenderShapeTriangleMesh
        parts = [part for shape in shapes if isinstance(shape, mesh) for part in shape.parts]
        triangles = sum(len(part.triangles) for part in parts)
        again = suite.reset(np.array([0]), [EpisodeStart("PegInsertionSide-v1", 3)])
        same = all(np.array_equal(first.images[view], again.images[view]) for view in first.images)
        suite.close()
        return first.images, triangles, same

    tuned, few, same = look()
    scene.coarsen = lambda *anything: None
    whole, many, _ = look()
    like = [
        float(np.corrcoef(*(np.ravel(each[view]).astype(float) for each in (tuned, whole)))[0, 1])
        for view in whole
    ]
    answer = dict(few=few, many=many, same=same, like=like)
    """)
    assert answer["many"] > 500_000
    assert answer["few"] < answer["many"] / 10
    assert answer["same"], "an episode begun again, in a scene made anew, looks as before"
    assert min(answer["like"]) > 0.95


def test_the_expert_puts_a_peg_into_its_hole_and_the_same_start_plays_the_same():
    answer = inside("""
    suite = ManiSkillSuite(1, image_size=16, tasks=["PegInsertionSide"], max_steps=150)
    slot, ends = np.zeros(1, np.int64), []
    for _ in range(2):
        suite.reset(slot, [EpisodeStart("PegInsertionSide-v1", 0)])
        for step in range(150):
            last = suite.step(slot, suite.expert_actions(slot)[:, None])
            if last.done[0]:
                break
        ends.append([step, bool(last.terminated[0]), last.state[0].tolist()])
    answer = dict(ends=ends)
    """)
    (steps, success, _), again = answer["ends"]
    assert success
    assert steps < 149
    assert again == answer["ends"][0]


def test_ways_of_our_own_end_in_success():
    answer = inside("""
    answer = {}
    for task in ("StackPyramid-v1", "PullCubeTool-v1", "PokeCube-v1", "RollBall-v1"):
        suite = ManiSkillSuite(1, tasks=[task], max_steps=150)
        simulator = suite._simulator(0)
        simulator.reset(EpisodeStart(task, 2))
        answer[task] = 0
        for step in range(1, 151):
            if simulator.step(simulator.expert_action()).success:
                answer[task] = step
                break
        suite.close()
    """)
    assert min(answer.values()) > 10, f"{answer}: 0 is failure"


def test_a_row_plays_what_the_scene_plays_that_its_start_was_dealt_from():
    # Rows are many on a GPU alone; one on the processor has the same states and the same memory.
    answer = inside("""
    from envservers.maniskill.batch import Batch, Row
    from envservers.maniskill.kept import unpacked
    from envservers.maniskill.robots import PANDA
    from envservers.maniskill.scene import Drawing, Scene
    from envservers.maniskill.tasks import TABLE_TOP

    answer = {}
    for task in TABLE_TOP:
        if task == "PegInsertionSide-v1":
            continue
        nothing = Drawing({}, {}, "none")
        scene, dealer, rows = (Scene(task, PANDA, nothing, "none") for _ in range(3))
        row = Row(Batch(rows, dealer), 0)
        rows.begin(9, {})
        scene.begin(3, {}), row.begin(3, {})
        random, apart, agreed = np.random.default_rng(0), [], True
        for now in range(20):
            if now == 10:
                kept = unpacked(row.kept().packed())
                row.begin(4, {})
                row.put(kept)
            action = random.uniform(-0.05, 0.05, 7).astype(np.float32)
            one, other = scene.step(action), row.step(action)
            agreed &= one.info["success"] == other.info["success"]
            apart.append(float(np.abs(scene.state() - row.state()).max()))
            things = [name for name, actor in scene._env.scene.actors.items()
                      if actor.px_body_type != "static"]
            apart += [float(np.abs(scene.pose_of(thing) - row.pose_of(thing)).max())
                      for thing in things]
        moved = float(np.abs(scene.state() - dealer.state())[:3].max())
        answer[task] = [max(apart), moved, bool(agreed)]
        scene.close(), row.batch.close()
    """)
    for task, (apart, moved, agreed) in answer.items():
        assert apart < 1e-4, task
        assert moved > 0.01, task
        assert agreed, task
