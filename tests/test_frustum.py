"""What is left out of a drawing: nothing that a camera could see, and much of what it cannot."""

import mujoco
import numpy as np
import pytest

from envservers.frustum import culled, outside

BALLS = 200


@pytest.fixture
def scene():
    """Balls all around a camera that looks somewhere, over a floor."""
    random = np.random.default_rng(0)
    balls = "".join(
        f'<geom size="{random.uniform(0.02, 0.4):.3f}" pos="{x:.3f} {y:.3f} {z:.3f}"/>'
        for x, y, z in random.uniform(-3, 3, (BALLS, 3))
    )
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="0 0 1" pos="0 0 -9"/>'
        '<camera name="eye" pos="0.3 -0.2 0.4" euler="70 20 40" fovy="50"/>'
        f"{balls}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data, model.camera("eye").id


def in_picture(model, data, camera, points):
    """[n] whether points of the world are in front of the camera and within its square."""
    seen = (points - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    edge = -seen[:, 2] * np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    return (seen[:, 2] < 0) & (np.abs(seen[:, :2]) <= edge[:, None]).all(axis=1)


def test_nothing_that_has_a_point_in_the_picture_is_left_out(scene):
    model, data, camera = scene
    left_out = outside(model, data, camera)
    assert not left_out[0], "a plane has no end"
    random = np.random.default_rng(1).normal(size=(3000, 3))
    directions = random / np.linalg.norm(random, axis=1, keepdims=True)
    visible = np.array(
        [
            in_picture(
                model, data, camera, data.geom_xpos[ball] + model.geom_size[ball, 0] * directions
            ).any()
            for ball in range(1, BALLS + 1)
        ]
    )
    assert visible.sum() > 10
    assert not left_out[1:][visible].any()
    # Of the others, spheres beside an edge of the pyramid alone are drawn for nothing.
    assert left_out[1:][~visible].mean() > 0.9


def test_only_while_a_scene_is_collected(scene):
    model, data, camera = scene
    view, found = mujoco.MjvCamera(), mujoco.MjvScene(model, 1000)
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera

    def drawn():
        mujoco.mjv_updateScene(
            model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, found
        )
        kinds = [found.geoms[each].objtype for each in range(found.ngeom)]
        return kinds.count(mujoco.mjtObj.mjOBJ_GEOM)

    groups = model.geom_group.copy()
    with culled(model, data, camera):
        assert drawn() == (~outside(model, data, camera)).sum() < BALLS
    with pytest.raises(RuntimeError), culled(model, data, camera):
        raise RuntimeError
    np.testing.assert_array_equal(model.geom_group, groups)
    assert drawn() == BALLS + 1
