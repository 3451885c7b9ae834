"""A suite's options, checked against its constructor before anything is built.

Names and types: whether a value makes sense is the constructor's business, which has `check_least`
and `check_choice` for it.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from vlarl.errors import UserError

_EXPECTED: dict[Any, tuple[Callable[[Any], bool], str]] = {
    # To Python, True is a whole number too.
    int: (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    float: (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "a number",
    ),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "text"),
    Sequence[str]: (
        lambda value: (
            isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
        ),
        "a list such as [a, b]",
    ),
    dict[str, Any]: (lambda value: isinstance(value, dict), "a mapping such as {key: value}"),
    dict[str, str]: (
        lambda value: (
            isinstance(value, dict) and all(isinstance(word, str) for word in value.values())
        ),
        "a mapping of names such as {key: name}",
    ),
}
"""Annotation -> whether a value is one, and how to say so."""
_ANYTHING = (lambda _value: True, "anything")
"""Of any other annotation."""


def check_options(suite: str, constructor: type, options: Mapping[str, Any]) -> None:
    """Refuse options that `constructor` does not take, or not with values of these types.

    Args:
        suite: named in the message.
        constructor: the suite's class; `num_envs` and `env_id` are not options.
        options: keyword arguments for it.

    Raises:
        UserError: naming the option, its value, what is expected.
    """
    hints = get_type_hints(constructor.__init__)  # type: ignore[misc]
    parameters = inspect.signature(constructor).parameters
    allowed = [option for option in parameters if option not in ("num_envs", "env_id")]
    for option, value in options.items():
        if option not in allowed:
            raise UserError(
                f"suite {suite!r} has no option {option!r}; options: {', '.join(allowed)}."
                f"{suggestion(option, allowed)}"
            )
        default = parameters[option].default
        accepts, words = _EXPECTED.get(_without_none(hints[option]), _ANYTHING)
        if not accepts(value) and not (value is None and default is None):
            raise UserError(
                f"suite {suite!r}: option {option} = {value!r}: must be {words}; "
                f"the default is {default!r}."
            )


def suggestion(value: str, allowed: Iterable[str]) -> str:
    """The end of an error message: " Did you mean ...?" for a near miss, else nothing."""
    near = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _without_none(annotation: Any) -> Any:
    """`X` of `X | None`; anything else as it is."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    return kinds[0] if len(kinds) == 1 else annotation


def check_least(least: int, **numbers: int) -> None:
    """Raise ValueError for an option's number below `least`."""
    for option, number in numbers.items():
        if number < least:
            raise ValueError(f"{option} = {number}: must be at least {least}")


def check_choice(option: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ValueError for an option's word that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{option} = {value!r}: choose one of {', '.join(allowed)}")
