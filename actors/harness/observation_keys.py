"""What others call what a policy is shown: keys of their messages -> cameras, state, sentence.

A map within a message counts as a key with a slash: `images/wrist` is the `wrist` of `images` where
a message is read; it is sent flat, as openpi does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from vlarl.contract import Contract
from vlarl.errors import UserError
from vlarl.observations import Observations
from vlarl.types import VIEWS, CameraSpec
from vlarl.wire_limits import WireError

STATE, SENTENCE = "state", "instruction"
_MAX_SENTENCE = 2000
"""Characters; no prompt has room for as many."""

PRESETS: dict[str, dict[str, str]] = {
    "openpi": {
        "observation/image": "ego",
        "observation/wrist_image": "cam_right_wrist",
        "observation/state": STATE,
        "prompt": SENTENCE,
    },
    "libero": {
        "images/agentview": "ego",
        "images/wrist": "cam_right_wrist",
        "states": STATE,
        "task_description": SENTENCE,
    },
}
"""openpi's own names for LIBERO, and those of vla-eval's LIBERO benchmark."""


@dataclass(frozen=True)
class ObservationKeys:
    """A mapping that was found to be one."""

    sources: Mapping[str, str]
    """Key of a message -> name of a camera, `state` or `instruction`."""

    @staticmethod
    def parse(text: str, name: str = "observation") -> ObservationKeys:
        """A preset's, or `{key: source, ...}` in YAML; `name` is what the setting is called.

        Raises:
            UserError: for anything else.
        """
        if text in PRESETS:
            return ObservationKeys(PRESETS[text])
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError:
            given = None
        allowed = (*VIEWS, STATE, SENTENCE)
        if not isinstance(given, dict) or not given:
            raise UserError(
                f"{name} = {text!r}: neither a preset ({', '.join(PRESETS)}) nor a mapping such as "
                "'{observation/image: ego, prompt: instruction}'."
            )
        for key, source in given.items():
            if not isinstance(key, str) or source not in allowed:
                raise UserError(
                    f"{name}: {key!r}: {source!r} is nothing that a policy is shown. "
                    f"It may be {', '.join(allowed)}."
                )
        if len(set(given.values())) < len(given):
            raise UserError(f"{name} = {text!r}: names one thing twice. Give each thing one key.")
        if SENTENCE not in given.values():
            raise UserError(f"{name} = {text!r}: has no key for the {SENTENCE}. Add one.")
        return ObservationKeys(given)

    def of_cameras(self, cameras: Sequence[str], name: str = "observation") -> ObservationKeys:
        """Those that environments with these cameras can send; a preset leaves out the others.

        Raises:
            UserError: for a camera that was asked for by name and is not there.
        """
        missing = [s for s in self.sources.values() if s in VIEWS and s not in cameras]
        if not missing:
            return self
        if self.sources in PRESETS.values():
            left = {key: s for key, s in self.sources.items() if s not in missing}
            return ObservationKeys(left)
        raise UserError(
            f"{name}: the environments have no camera {missing[0]!r}. They have "
            f"{', '.join(cameras)}."
        )

    def covering(self, contract: Contract, name: str = "observation") -> None:
        """Refuse a mapping that lacks what a policy of one embodiment must be shown.

        Raises:
            UserError: naming it.
        """
        needed = [camera.name for camera in contract.cameras]
        needed += [STATE] if contract.shows_state else []
        for source in needed:
            if source not in self.sources.values():
                raise UserError(
                    f"{name}: the checkpoint is shown {', '.join(needed)}, and no key gives "
                    f"{source}. Name one: {name}='{{KEY: {source}, ...}}'."
                )

    def message(self, observations: Observations, row: int) -> dict[str, Any]:
        """One row of `observations`, as a message."""
        told: dict[str, Any] = {}
        for key, source in self.sources.items():
            if source == SENTENCE:
                told[key] = str(observations.instructions[row])
            elif source == STATE:
                assert observations.state is not None
                told[key] = observations.state[row]
            else:
                told[key] = observations.images[source][row]
        return told

    def read(
        self, message: Mapping[str, Any], cameras: Sequence[CameraSpec], state_dim: int
    ) -> Observations:
        """The one observation that a message holds, in the size in which these cameras see.

        Args:
            message: unpacked.
            cameras: what the policy must be shown.
            state_dim: numbers of its state; 0: it is shown none, and none need come.

        Raises:
            WireError: for what is missing or has another shape.
        """
        found = dict(_flat(message))
        key_of = {source: key for key, source in self.sources.items()}

        def value(source: str) -> Any:
            if key_of[source] not in found:
                has = ", ".join(sorted(found)) or "nothing"
                raise WireError(f"the observation lacks {key_of[source]!r}; it has {has}")
            return found[key_of[source]]

        sentence = value(SENTENCE)
        if not isinstance(sentence, str) or len(sentence) > _MAX_SENTENCE:
            kind = type(sentence).__name__
            what = "long text" if isinstance(sentence, str) else f"of type {kind}"
            raise WireError(
                f"{key_of[SENTENCE]!r} is {what}, not text of up to {_MAX_SENTENCE} characters"
            )
        images = {c.name: _seen(value(c.name), c, key_of[c.name])[None] for c in cameras}
        state = _state(value(STATE), state_dim, key_of[STATE]) if state_dim else None
        return Observations(images, [sentence], state=state)


def _flat(message: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in message.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _seen(picture: object, camera: CameraSpec, key: str) -> NDArray[np.uint8]:
    """A picture as the camera sees, [height, width, 3]; one of another size is averaged to it."""
    shape = getattr(picture, "shape", None)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
        raise WireError(f"{key!r} is no picture of bytes [height, width, 3]: {shape}")
    height, width, colors = picture.shape
    if colors != 3 or not height or height * camera.width != width * camera.height:
        raise WireError(
            f"{key!r} is {list(picture.shape)}; the policy sees {camera.height}x{camera.width} "
            "pixels of 3 colors, or as many times that"
        )
    if (height, width) == (camera.height, camera.width):
        return picture
    resized = Image.fromarray(picture).resize(
        (camera.width, camera.height), Image.Resampling.BILINEAR
    )
    return np.array(resized)


def _state(state: object, state_dim: int, key: str) -> NDArray[np.float32]:
    """A state [1, state_dim]."""
    if not isinstance(state, np.ndarray) or state.shape != (state_dim,) or state.dtype.kind != "f":
        shape = list(getattr(state, "shape", ()))
        raise WireError(f"{key!r} has shape {shape}; the policy is shown {state_dim} numbers")
    if not np.isfinite(state).all():
        raise WireError(f"{key!r} holds NaN or infinity")
    return state.astype(np.float32)[None]
