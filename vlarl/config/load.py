"""Reads a YAML file and dotted overrides into a frozen, checked `RunConfig`, and writes one.

Everything a user can get wrong here is one `ConfigError` that names the file (or the command
line), the key, the value and the remedy. What values mean together is checked in `validate.py`;
what a simulator or a checkpoint has to say is checked by those.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vlarl.config.paths import configs_folder, read_yaml
from vlarl.config.schema import RunConfig
from vlarl.config.validate import validate
from vlarl.errors import ConfigError

COMMAND_LINE = "command line"
_NAMED = {
    "supervised.data.mixture": "mapping such as `{NAME: {path: FOLDER, kind: robot, weight: 1}}`",
    "env.suites": "mapping such as `{NAME: {suite: tabletop, servers: 2}}`",
}
"""Mappings whose free keys are sections: `supervised.data.mixture.NAME.weight`; what they hold."""


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), only: Sequence[str] | None = None
) -> RunConfig:
    """The config of a run: schema defaults, then the file, then the overrides.

    A mapping of free keys (`learning_rates`, `parameters`, `options`) that a file gives replaces
    the default; an override of one of its keys (`ppo.optimizer.learning_rates.vision=1e-6`) adds.

    Args:
        path: a YAML file, a run folder, or None for the defaults alone.
        overrides: `dotted.key=value`; values are YAML, so `[a, b]` is a list and `1e-5` a number.
        only: keys or sections of the file that count; the rest stays as in the schema.

    Raises:
        ConfigError: for a missing or malformed file, an unknown key, an ill-typed or impossible
            value, or a setting that would have no effect.
    """
    given: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if path is not None:
        file = _existing_file(Path(path))
        for key, value in _leaves(RunConfig, read_yaml(file), str(file)):
            if only is None or any(f"{key}.".startswith(f"{part}.") for part in only):
                given[key] = value
                origin[key] = str(file)
    for override in overrides:
        _apply_override(override, given, origin)
    config = _typed(given, origin)
    validate(config, origin, default_origin=str(path) if path is not None else "config")
    return config


def dump_config(config: RunConfig, path: str | Path) -> None:
    """Write the resolved config as YAML that `load_config` reads back to an equal config."""
    Path(path).write_text(config_yaml(config), encoding="utf-8")


def config_yaml(config: RunConfig) -> str:
    """The resolved config as YAML text, keys in the schema's order."""
    return yaml.safe_dump(config_dict(config), sort_keys=False, allow_unicode=True)


def config_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved config as plain dictionaries, lists and scalars."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def known_keys() -> dict[str, Any]:
    """Every dotted key of the schema with its default value."""
    return dict(_leaves(RunConfig, config_dict(RunConfig()), "schema"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _existing_file(path: Path) -> Path:
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"
    if path.is_file():
        return path
    packaged = _packaged(path)
    if packaged is not None:
        return packaged
    siblings = sorted(item.name for item in path.parent.glob("*.yaml"))
    close = difflib.get_close_matches(path.name, siblings, n=1)
    if close:
        remedy = f"Did you mean {path.parent / close[0]}?"
    elif siblings:
        remedy = f"That folder holds: {', '.join(siblings)}."
    else:
        remedy = "`vlarl info config` lists the configs that ship with the package."
    raise ConfigError(f"{path}: no such config file. {remedy}")


def _packaged(path: Path) -> Path | None:
    """`configs/rl/tabletop.yaml` also works from any folder, where the package is installed."""
    if path.is_absolute() or path.parts[:1] != ("configs",):
        return None
    candidate = configs_folder() / Path(*path.parts[1:])
    return candidate if candidate.is_file() else None


def _leaves(
    schema: type, data: Mapping[str, Any], source: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of `data`, each key checked against the schema."""
    hints = get_type_hints(schema)
    for name, value in data.items():
        key = f"{prefix}{name}"
        if name not in hints:
            _refuse_unknown(key, value, source)
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                remedy = f"It is a section: give its settings, as in `{key}.NAME={value}`."
                raise ConfigError(f"{source}: {key} = {value!r}: not a mapping. {remedy}")
            yield from _leaves(hints[name], value, source, f"{key}.")
        else:
            yield key, value


def _refuse_unknown(key: str, value: Any, source: str) -> NoReturn:
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    known = list(known_keys())
    name = key.rsplit(".", 1)[-1]
    same_name = [other for other in known if other.rsplit(".", 1)[-1] == name]
    close = same_name or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        names = {other.rsplit(".", 1)[-1]: other for other in known}
        close = [names[match] for match in difflib.get_close_matches(name, list(names), n=1)]
    remedy = (
        f"Did you mean {' or '.join(close)}?" if close else "`vlarl info config` lists all keys."
    )
    raise ConfigError(f"{source}: {key} = {value!r}: no such setting. {remedy}")


def _apply_override(override: str, given: dict[str, Any], origin: dict[str, str]) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"{COMMAND_LINE}: {override!r}: not a setting. Write `key=value`, such as `seed=1`."
        )
    try:
        parsed = OmegaConf.to_container(OmegaConf.create(f"value: {text}" if text else "value: ''"))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"{COMMAND_LINE}: {key} = {text!r}: not readable as YAML: {reason}. Quote it: "
            f"'{key}=\"...\"'."
        ) from error
    assert isinstance(parsed, dict)
    value = parsed["value"]
    owner, name = _owner_of_free_key(key)
    if owner is not None:
        before = given.get(owner, known_keys()[owner]) or {}
        path = name.split(".") if owner in _NAMED else [name]
        given[owner], origin[owner] = _with(before, path, value), COMMAND_LINE
        return
    nested: dict[str, Any] = {}
    node = nested
    *path, last = key.split(".")
    for part in path:
        node = node.setdefault(part, {})
    node[last] = value
    for leaf, leaf_value in _leaves(RunConfig, nested, COMMAND_LINE):
        given[leaf], origin[leaf] = leaf_value, COMMAND_LINE


def _with(mapping: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """The mapping with `value` at the end of `path`; what is no mapping on the way is replaced."""
    first, *rest = path
    before = mapping if isinstance(mapping, Mapping) else {}
    return {**before, first: _with(before.get(first), rest, value) if rest else value}


def _owner_of_free_key(key: str) -> tuple[str | None, str]:
    """`("ppo.optimizer.learning_rates", "vision")` of that dotted key; the owner may be None."""
    for known, default in known_keys().items():
        free = isinstance(default, Mapping) or known in _NAMED
        if free and key.startswith(f"{known}."):
            return known, key[len(known) + 1 :]
    return None, ""


def _typed(given: Mapping[str, Any], origin: Mapping[str, str]) -> RunConfig:
    """Merge into the structured schema; on failure, find the key that caused it."""
    try:
        merged = _merge(given)
    # A list in place of a mapping is a TypeError of OmegaConf's.
    except (OmegaConfBaseException, TypeError) as failure:
        for key, value in given.items():
            try:
                _merge({key: value})
            except (OmegaConfBaseException, TypeError) as error:
                wanted = _NAMED.get(key) or _spoken(type(known_keys()[key]).__name__)
                reason = str(error).splitlines()[0]
                raise ConfigError(
                    f"{origin[key]}: {key} = {value!r}: {reason}. Give it a {wanted}."
                ) from error
        raise ConfigError(str(failure)) from failure
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    return config


def _spoken(type_name: str) -> str:
    words = {
        "int": "whole number",
        "float": "number",
        "str": "text",
        "bool": "`true` or `false`",
        "list": "list such as `[a, b]` of the right length",
        "dict": "mapping such as `{expert: 1e-5}` of the right types",
        "NoneType": "number, or null",
    }
    return words[type_name]


def _merge(given: Mapping[str, Any]) -> Any:
    base = OmegaConf.structured(RunConfig)
    OmegaConf.set_readonly(base, None)
    nested: dict[str, Any] = {}
    for key, value in given.items():
        node = nested
        *path, last = key.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
        if isinstance(value, Mapping):
            _empty_mapping(base, key)
    return OmegaConf.merge(base, OmegaConf.create(nested))


def _empty_mapping(base: Any, key: str) -> None:
    """Free mappings replace the default's keys instead of being merged into them."""
    node = OmegaConf.select(base, key)
    if node is None:
        return
    OmegaConf.set_readonly(node, False)
    for name in list(node):
        del node[name]
