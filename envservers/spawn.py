"""An env server as a child process: starting, watching and ending it.

The child ends when its host dies in any way: its standard input is a pipe that the host's thread
feeds (a lease), and the kernel signals it when that thread is gone. Talking to it is the business
of `client.py`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from envservers import environments, registry
from envservers.socket_folder import make_socket_folder
from vlarl.errors import EnvServerDied, UserError

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_END_SECONDS = 2.0


class ServerProcess:
    """One running `python -m envservers.server`.

    Args:
        suite: name as in `registry.make_suite`.
        num_envs: environments of the process.
        options: keyword arguments of the suite; must be JSON.
        bind: address; None picks a private socket of this machine.
        key_file: what its clients must have; needed where `bind` reaches beyond this machine.
        python: interpreter of an environment with the suite's own pins; None means that of the
            suite's environment, or this one where it needs none.
        threads: simulation threads, for suites that take the option.
        lease_seconds: the server ends itself when its host was silent for this long.
        start_seconds: how long it may take to become ready; None: as long as the suite needs.

    Raises:
        UserError: for a mistake in suite, options, tasks, memory or address, or if the suite's
            environment is not installed.
        EnvServerDied: if it ended or was not ready in time.
    """

    def __init__(
        self,
        suite: str,
        num_envs: int,
        options: Mapping[str, Any] | None = None,
        *,
        bind: str | None = None,
        key_file: str = "",
        python: str | None = None,
        threads: int = 1,
        lease_seconds: float = 60.0,
        start_seconds: float | None = None,
    ) -> None:
        registry.check_memory(suite, num_envs, options=options)
        entry = registry.find_suite(suite)
        start_seconds = entry.start_seconds if start_seconds is None else start_seconds
        self._isolated_path = ""
        if python is None and entry.environment:
            python = environments.python_of(entry.environment)
            # What the caller's interpreter finds on its path need not fit that one.
            self._isolated_path = environments.light_path()
        self._folder: Path | None = None
        self._lock: int | None = None
        if bind is None:
            self._folder, self._lock = make_socket_folder()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._lease_seconds = lease_seconds
        self._stop = threading.Event()
        self._started = threading.Event()
        self._launch_error: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            python or sys.executable,
            *("-m", "envservers.server", suite),
            *("--num-envs", str(num_envs)),
            *("--bind", bind or f"ipc://{self._folder}/socket"),
            *(("--key-file", key_file) if key_file else ()),
            *("--options-json", json.dumps(dict(options or {}))),
            *("--threads", str(threads)),
            *("--lease-seconds", str(lease_seconds)),
            *("--parent-pid", str(os.getpid())),
        ]
        self._own_interpreter = python is None
        # The parent-death signal fires when the *thread* that forked ends, so the thread that
        # forks must live as long as the server: it also renews the lease.
        self._thread = threading.Thread(target=self._hold, name="env-server-host", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._process is None:
            self.close()
            raise UserError(f"cannot start {self._command[0]}: {self._launch_error}")
        try:
            self.address: str = self._read_address(start_seconds)
        except (UserError, EnvServerDied):
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return None if self._process is None else self._process.poll()

    def log_tail(self, characters: int = 4000) -> str:
        """The end of what the server wrote to its standard error."""
        if self._log.closed:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), characters, max(0, size - characters)).decode(
            errors="replace"
        )

    def close(self) -> None:
        """End the server, kindly and then by force; safe to call twice."""
        self._stop.set()
        self._thread.join()
        process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._log.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self) -> None:
        environment = {**os.environ, **ONE_THREAD}
        if self._isolated_path:
            environment["PYTHONPATH"] = self._isolated_path
        elif self._own_interpreter:
            root = str(Path(__file__).resolve().parents[1])
            inherited = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([root, *([inherited] if inherited else [])])
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                bufsize=0,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        except OSError as error:
            self._launch_error = error
            return
        finally:
            self._started.set()
        assert self._process.stdin is not None
        while not self._stop.wait(self._lease_seconds / 4):
            try:
                self._process.stdin.write(b".")
            except BrokenPipeError:
                return

    def _read_address(self, start_seconds: float) -> str:
        """Wait for the ready line `ready ADDRESS`."""
        assert self._process is not None
        assert self._process.stdout is not None
        give_up = time.monotonic() + start_seconds
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, give_up - time.monotonic())
            )
            if not readable:
                raise EnvServerDied(
                    f"env server (pid {self.pid}) was not ready within {start_seconds:g} s\n"
                    f"{self.log_tail()}"
                )
            data = self._process.stdout.read(1)
            if not data:
                self._raise_early_end(start_seconds)
            line += data
        return line.decode().removeprefix("ready ").strip()

    def _raise_early_end(self, start_seconds: float) -> None:
        assert self._process is not None
        try:
            code = self._process.wait(start_seconds)
        except subprocess.TimeoutExpired:
            code = None
        if code == 2:
            raise UserError(self.log_tail().strip().removeprefix("error: "))
        raise EnvServerDied(
            f"env server (pid {self.pid}) ended with code {code} before it was ready\n"
            f"{self.log_tail()}"
        )
