"""Metrics as Prometheus reads them: a file for node_exporter's textfile collector, and over HTTP.

`success_rate/TASK` becomes `vlarl_success_rate_by_task{run="NAME",task="TASK"}`: a name of its own,
so that a sum over the tasks does not count them twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vlarl.errors import UserError
from vlarl.metric_names import meaning

FILE = "metrics.prom"
_HOST = "127.0.0.1"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PrometheusSink:
    """`metrics.prom` of a run folder, and the same text on a port of the loopback.

    Args:
        folder: of the run, whose name labels every metric.
        port: 0: the file alone.

    Raises:
        UserError: naming the port, if it is taken or not ours to take.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._path = folder / FILE
        self._run = folder.name
        self._server = _listen(port, self._path) if port else None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Replace the file's numbers by these.

        Raises:
            OSError: if there is no room; the numbers before these stay.
        """
        temporary = self._path.with_suffix(".prom.tmp")
        try:
            temporary.write_text(exposition({"step": step, **metrics}, self._run), encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Stop listening; the file stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def exposition(metrics: Mapping[str, float], run: str) -> str:
    """The text format, version 0.0.4: for each name HELP (where known), TYPE and its samples."""
    families: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    for name, value in metrics.items():
        known = meaning(name)
        base, _, part = name.partition("/")
        label = (known.label if known else "") or "part"
        family = re.sub(r"[^a-zA-Z0-9_]", "_", f"vlarl_{base}{f'_by_{label}' if part else ''}")
        labels = {"run": run, **({label: part} if part else {})}
        inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        families.setdefault(family, []).append(f"{family}{{{inner}}} {_number(value)}")
        if family not in heads:
            kind = "counter" if base.endswith("_total") else "gauge"
            words = f"{known.text} ({known.unit})" if known and known.unit else known and known.text
            heads[family] = [
                *([f"# HELP {family} {words}"] if words else []),
                f"# TYPE {family} {kind}",
            ]
    lines = [line for family, rows in families.items() for line in (*heads[family], *rows)]
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    """As the format writes it: NaN, +Inf and -Inf are numbers too."""
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(str(value), repr(float(value)))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class _Handler(BaseHTTPRequestHandler):
    """Answers `GET /metrics` with the file as it is."""

    def __init__(self, path: Path, *arguments: object) -> None:
        self._path = path
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """The metrics; nothing before the first row; 404 elsewhere."""
        if self.path not in ("/", "/metrics"):
            self.send_error(404, "see /metrics")
            return
        body = self._path.read_bytes() if self._path.exists() else b""
        self.send_response(200)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Scrapes are no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A second server on the port is a mistake to be told of.
    allow_reuse_port = False


def refuse_taken_port(port: int) -> None:
    """Take the port for a moment: to be known before long work.

    Raises:
        UserError: as `PrometheusSink`.
    """
    if port:
        _bound(port, Path()).server_close()


def _listen(port: int, path: Path) -> _Server:
    server = _bound(port, path)
    threading.Thread(target=server.serve_forever, name="prometheus", daemon=True).start()
    return server


def _bound(port: int, path: Path) -> _Server:
    try:
        return _Server((_HOST, port), partial(_Handler, path))
    except OSError as error:
        raise UserError(
            f"logging.prometheus_port = {port}: cannot listen there ({error.strerror}). Choose "
            "another port, or 0 for the file alone."
        ) from error
