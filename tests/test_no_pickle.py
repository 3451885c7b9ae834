"""Nothing that came from elsewhere is ever unpickled: not from a socket, not from a checkpoint."""

import ast

import pytest
from test_imports import PACKAGES, ROOT, files_of, imports_of, module_name

PICKLERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg"}
UNPICKLING_CALLS = {
    ("torch", "load"),
    ("torch", "save"),
}
ANY_OBJECT = {"recv_pyobj", "send_pyobj", "loads_pickle", "read_pickle", "unsafe_load", "full_load"}


def unpicklers(source, module):
    """Places in a source text that could run what they read, with their line."""
    found = [
        f"{line} imports {name}"
        for name, line in imports_of(source, module)
        if name.split(".")[0] in PICKLERS
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if (owner, node.attr) in UNPICKLING_CALLS or node.attr in ANY_OBJECT:
                found.append(f"{node.lineno} uses {owner}.{node.attr}")
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            unpickles = not isinstance(node.value, ast.Constant) or node.value.value is not False
            if unpickles:
                found.append(f"{node.value.lineno} sets {node.arg}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_unpickles(package):
    found = [
        f"{file.relative_to(ROOT)}:{place}"
        for file in files_of(package)
        for place in unpicklers(file.read_text(encoding="utf-8"), module_name(file))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from marshal import loads",
        "import torch\ntorch.load('x', weights_only=True)",
        "socket.recv_pyobj()",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_the_walk_finds_what_it_looks_for(source):
    assert unpicklers(source, "package.module")


def test_the_walk_lets_pass_what_unpickles_nothing():
    assert not unpicklers("import json\nnp.load('x', allow_pickle=False)", "package.module")
