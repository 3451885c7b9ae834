"""The embodiment-aware prompt, word for word as in section 2.3 of the paper. Light; no tokens here.

The same string serves training, rollout, evaluation and serving. A change of wording is a change of
`PROMPT_VERSION`, which checkpoints carry.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlarl.embodiment import Embodiment

PROMPT_VERSION = "1"


def prompt(
    embodiment: Embodiment, instruction: str, horizon: int, state: Iterable[int] | None = None
) -> str:
    """The text that tells the model which robot it drives and what to do.

    Args:
        embodiment: the robot and its control frequency.
        instruction: the task's sentence; a final period is dropped, for the template brings one.
        horizon: `H_task`, control steps (or waypoints) of the predicted chunk.
        state: bins of the robot's state, said before the instruction as in the example of section
            5.2.4; None: not said.

    Raises:
        ValueError: if the instruction is empty or no text.
    """
    if not isinstance(instruction, str):
        raise ValueError(f"the instruction is {instruction!r:.40}, not text")
    task = instruction.strip().removesuffix(".")
    if not task:
        raise ValueError("the instruction is empty: say what the robot should do")
    if state is not None:
        task = f"state: [{', '.join(map(str, state))}] {task}"
    if embodiment.is_navigation:
        return _navigation_prompt(embodiment, task, horizon)
    arms = "dual arms" if embodiment.dual_arm else "single arm"
    waist = ", waist" if embodiment.waist else ""
    base = ", and mobile base" if embodiment.mobile_base else ""
    return (
        f"The robot is {embodiment.robot_tag} with {arms}{waist}{base}. "
        f"The control frequency is {embodiment.control_hz:g} Hz. "
        f"Please predict the next {horizon} control actions "
        f"to execute the following task: {task}."
    )


def _navigation_prompt(embodiment: Embodiment, task: str, horizon: int) -> str:
    """The analogous text of section 2.4: no arms, but the convention and how many waypoints.

    The paper gives no wording; this one keeps the template's sentences and takes the convention
    from section 2.4.
    """
    base = " with mobile base" if embodiment.mobile_base else ""
    names = ", ".join(channel.name for channel in embodiment.channels)
    return (
        f"The robot is {embodiment.robot_tag}{base}. "
        f"The control frequency is {embodiment.control_hz:g} Hz. "
        f"Each waypoint is ({names}), "
        "the relative displacement and heading change in the ground plane. "
        f"Please predict the next {horizon} waypoints "
        f"to execute the following task: {task}."
    )
