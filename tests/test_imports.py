"""Imports point one way: actors -> learners -> vlarl, actors -> envservers -> light vlarl.

Reads every import statement, those inside functions too, and names the file that turns an arrow
round. The light modules are also followed through what they import themselves.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vlarl", "learners", "envservers", "actors")
HEAVY = {
    "torch", "tensordict", "torchrl", "transformers", "tokenizers", "safetensors", "ray",
    "omegaconf", "rich", "matplotlib", "pyarrow", "wandb",
}  # fmt: skip
SIMULATORS = {"mujoco", "gymnasium"}
FORBIDDEN = {
    "vlarl": {"actors", "learners", "envservers", "ray", *SIMULATORS},
    "learners": {"actors", "envservers", "ray", *SIMULATORS},
    "envservers": {"actors", "learners", *HEAVY},
    "actors": set(),
}
LIGHT = {
    "vlarl", "vlarl.types", "vlarl.env_protocol", "vlarl.errors", "vlarl.wire", "vlarl.prompt",
    "vlarl.embodiment", "vlarl.action_space", "vlarl.waypoints", "vlarl.config",
    "vlarl.config.schema", "vlarl.config.cluster_schema", "vlarl.config.data_schema",
    "vlarl.config.process_schema", "vlarl.wire_limits", "vlarl.addresses",
}  # fmt: skip
"""What `envservers` may import of `vlarl`: numpy and nothing heavier."""


def imports_of(source, module):
    """Dotted names that a source text imports, relative ones resolved, with their line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, *filter(None, [base])])
            found.append((base, node.lineno))
            found += [(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_of(package):
    return sorted((ROOT / package).rglob("*.py"))


def reversed_arrows(package):
    arrows = []
    for file in files_of(package):
        # A package's own __init__ counts as a module inside it, for relative imports.
        module = module_name(file) + (".__init__" if file.name == "__init__.py" else "")
        for name, line in imports_of(file.read_text(encoding="utf-8"), module):
            if name.split(".")[0] in FORBIDDEN[package]:
                arrows.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    return arrows


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_is_turned_round(package):
    arrows = reversed_arrows(package)
    assert not arrows, "\n".join(arrows)


def is_module(name):
    path = ROOT / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("user", ["envservers", *sorted(LIGHT)])
def test_only_light_modules_of_vlarl_reach_env_servers(user):
    path = ROOT / Path(*user.split("."))
    files = [path / "__init__.py", path.with_suffix(".py")]
    if user == "envservers":
        files = files_of(user)
    heavy = []
    for file in filter(Path.exists, files):
        for name, line in imports_of(file.read_text(encoding="utf-8"), module_name(file)):
            top = name.split(".")[0]
            other = top == "vlarl" and is_module(name) and name not in LIGHT
            if other or (user != "envservers" and top in HEAVY):
                heavy.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not heavy, "\n".join(heavy)


def test_importing_the_env_server_loads_nothing_heavy():
    code = (
        "import sys, envservers.server, envservers.client\n"
        f"print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_the_walk_sees_imports_inside_functions_and_relative_ones():
    source = "def f():\n    from . import b\n    import ray.util\nfrom ..other import thing\n"
    found = dict(imports_of(source, "package.sub.module"))
    assert found["ray.util"] == 3
    assert found["package.sub.b"] == 2
    assert found["package.other.thing"] == 4
