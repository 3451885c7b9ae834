"""What a robot is, as far as prompt and action channels go. Numpy-free, light; no file reading.

`vlarl.config.embodiments` reads these from YAML; `vlarl.prompt` words them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from vlarl.errors import UserError
from vlarl.types import Channel, EnvSpec

MAX_CHANNELS = 64
"""`K`: channels of the action tensor that every control mode shares (paper section 2.4)."""


def is_embodiment_file(reference: str) -> bool:
    """Whether an embodiment is given by the path of its file, not by the name of a shipped one."""
    return PurePath(reference).suffix in (".yaml", ".yml")


def embodiment_name(reference: str) -> str:
    """The name of an embodiment that is given by name or by path: files are named like robots."""
    return PurePath(reference).stem if is_embodiment_file(reference) else reference


@dataclass(frozen=True)
class Embodiment:
    """One platform and control mode (paper section 2.3 and Table 2)."""

    name: str
    robot_tag: str
    """How the prompt names it, word for word: `WidowX`, `a 6-joint tabletop arm`."""
    dual_arm: bool
    """Two arms, or hands; false for a navigation agent, which has none."""
    waist: bool
    """Whether the actions move the waist."""
    mobile_base: bool
    """Whether the robot stands on one, moved by these actions or not."""
    control_hz: float
    horizon: int
    """`H_task`: control steps of one predicted chunk."""
    channels: tuple[Channel, ...]
    """The leading `c` channels of the action tensor, in order."""
    cameras: tuple[str, ...] = ()
    """Some of `vlarl.types.VIEWS`, in the order in which the prompt shows them; empty: not said."""

    @property
    def is_navigation(self) -> bool:
        """Whether the actions are waypoints in the ground plane instead of manipulation."""
        return bool(self.channels) and all(c.kind == "waypoint" for c in self.channels)

    @property
    def layout(self) -> tuple[tuple[str, str, str], ...]:
        """See `layout_of`."""
        return layout_of(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as YAML and JSON hold them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Embodiment:
        """Inverse of `to_dict`; `cameras` may be absent, as in older checkpoints.

        Raises:
            ValueError: for anything but a mapping, a missing or an unknown key, or an unknown kind
                of channel.
        """
        if not isinstance(values, dict):
            raise ValueError(f"embodiment is {values!r:.40}, not a mapping")
        try:
            channels = tuple(Channel(**channel) for channel in values["channels"])
            cameras = tuple(values.get("cameras", ()))
            return Embodiment(**{**values, "channels": channels, "cameras": cameras})
        except (TypeError, KeyError) as error:
            raise ValueError(f"embodiment {values.get('name', '?')!r}: {error}") from error


def layout_of(channels: Sequence[Channel]) -> tuple[tuple[str, str, str], ...]:
    """Name, unit and kind of each channel: what an action means, whatever its bounds."""
    return tuple((channel.name, channel.unit, channel.kind) for channel in channels)


UNNAMED = "gym"
"""Embodiment of environments that do not say what they are."""
_UNNAMED_HORIZON = 16


def embodiment_of(spec: EnvSpec) -> Embodiment:
    """The embodiment of an environment that does not say what it is, from its spec alone.

    Raises:
        UserError: if its actions have no finite bounds, which a new model's codec needs.
    """
    for channel in spec.channels:
        if not (math.isfinite(channel.low) and math.isfinite(channel.high)):
            raise UserError(
                f"suite {spec.suite!r}: action channel {channel.name} goes from {channel.low:g} to "
                f"{channel.high:g}; a new model needs finite bounds. Wrap the environment in "
                "gymnasium.wrappers.RescaleAction, or name an embodiment file of your own: "
                "env.options.embodiment=my_robot.yaml"
            )
    return Embodiment(
        name=UNNAMED,
        robot_tag=f"the agent of {spec.suite.removeprefix('gym:')}",
        dual_arm=False,
        waist=False,
        mobile_base=False,
        control_hz=spec.control_hz,
        horizon=_UNNAMED_HORIZON,
        channels=spec.channels,
        cameras=tuple(camera.name for camera in spec.cameras),
    )
