"""What a robot is, as far as prompt and action channels go. Numpy-free, light; no file reading.

`vlarl.config.embodiments` reads these from YAML; `vlarl.prompt` words them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vlarl.types import Channel


@dataclass(frozen=True)
class Embodiment:
    """One platform and control mode (paper section 2.3 and Table 2)."""

    name: str
    robot_tag: str
    """How the prompt names it, article included: `a 6-joint tabletop arm`."""
    dual_arm: bool
    waist: bool
    mobile_base: bool
    control_hz: float
    horizon: int
    """`H_task`: control steps of one predicted chunk."""
    channels: tuple[Channel, ...]
    """The leading `c` channels of the action tensor, in order."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as YAML and JSON hold them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Embodiment:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for a missing or an unknown key.
        """
        try:
            channels = tuple(Channel(**channel) for channel in values["channels"])
            return Embodiment(**{**values, "channels": channels})
        except (TypeError, KeyError) as error:
            raise ValueError(f"embodiment {values.get('name', '?')!r}: {error}") from error
