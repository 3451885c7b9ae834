"""Runs code where a suite is installed: in its own interpreter."""

import json
import subprocess
import textwrap

from envservers import environments


def run_inside(suite: str, begin: str, code: str) -> dict:
    """What `code`, which comes after `begin`, leaves in `answer`."""
    program = begin + textwrap.dedent(code) + "\nimport json\nprint('ANSWER' + json.dumps(answer))"
    done = subprocess.run(
        [environments.python_of(suite), "-c", program],
        env={"PYTHONPATH": environments.light_path(), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("ANSWER")[2])
