"""Metrics as Prometheus reads them: by the grammar of the text format, and over HTTP."""

import math
import re
import socket
import urllib.error
import urllib.request

import pytest

from vlarl.config.load import load_config
from vlarl.errors import UserError
from vlarl.metric_names import METRICS
from vlarl.prometheus import PrometheusSink, exposition
from vlarl.runs import RunFolder

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")
HEAD = re.compile(rf"# (HELP|TYPE) ({NAME}) (.+)")


def parse(text):
    """{(name, labels): value}; every line by the grammar, a name's lines together, heads first."""
    assert text.endswith("\n")
    samples, heads, order = {}, {}, []
    for line in text.splitlines():
        head, sample = HEAD.fullmatch(line), SAMPLE.fullmatch(line)
        assert head or sample, line
        name = head.group(2) if head else sample.group(1)
        if name not in order[-1:]:
            assert name not in order
            order.append(name)
        if head:
            assert (name, head.group(1)) not in heads
            assert not any(name == known for known, _ in samples)
            heads[name, head.group(1)] = head.group(3)
        else:
            assert (name, "TYPE") in heads
            assert (name, sample.group(2)) not in samples
            samples[name, sample.group(2)] = float(sample.group(3))
    return samples, heads


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_text_follows_the_grammar_whatever_the_names():
    metrics = {
        "success_rate": 0.5,
        "success_rate/a": 0.25,
        "grad_norm/expert": 1e-30,
        "success_rate/b": math.nan,
        "restarts_total": 3,
        "reward": -math.inf,
        'odd-name/quo"te\\back\nline': 1.0,
    }
    samples, heads = parse(exposition(metrics, "run 1"))
    run = 'run="run 1"'
    assert samples["vlarl_success_rate", run] == 0.5
    assert samples["vlarl_success_rate_by_task", f'{run},task="a"'] == 0.25
    assert math.isnan(samples["vlarl_success_rate_by_task", f'{run},task="b"'])
    assert samples["vlarl_grad_norm_by_part", f'{run},part="expert"'] == 1e-30
    assert samples["vlarl_reward", run] == -math.inf
    odd = "vlarl_odd_name_by_part", run + r',part="quo\"te\\back\nline"'
    assert samples[odd] == 1.0
    assert heads["vlarl_restarts_total", "TYPE"] == "counter"
    assert heads["vlarl_success_rate", "TYPE"] == "gauge"
    assert "share" in heads["vlarl_success_rate_by_task", "HELP"]
    assert ("vlarl_odd_name_by_part", "HELP") not in heads


def test_every_documented_metric_has_a_family_of_its_own():
    metrics = {name.replace("*", "x"): 1.0 for name in METRICS}
    samples, heads = parse(exposition(metrics, "run"))
    assert len(samples) == len(METRICS)
    assert sum(kind == "HELP" for _, kind in heads) == len(METRICS)


def prometheus_run(folder, port):
    overrides = [f"output={folder}", "name=run", "logging.prometheus=true"]
    return load_config(None, [*overrides, f"logging.prometheus_port={port}"])


def test_a_run_is_scraped_while_it_goes_on(tmp_path):
    port = free_port()
    run = RunFolder.create(prometheus_run(tmp_path, port))
    address = f"http://127.0.0.1:{port}"
    assert urllib.request.urlopen(f"{address}/metrics").read() == b""
    for step in (1, 2):
        run.log(step, reward=step / 10)
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = answer.read().decode()
        assert parse(text)[0]["vlarl_step", 'run="run"'] == step
        assert text == (run.path / "metrics.prom").read_text()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/other")
    run.close()
    run.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/metrics")
    assert sorted(path.name for path in run.path.glob("metrics*")) == [
        "metrics.jsonl",
        "metrics.prom",
    ]


def test_a_taken_port_is_named_before_anything_is_written(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = f"logging.prometheus_port = {port}: .*in use.*another port"
        with pytest.raises(UserError, match=words):
            RunFolder.refuse_taken(prometheus_run(tmp_path, port))
        with pytest.raises(UserError, match=words):
            RunFolder.create(prometheus_run(tmp_path, port))
        with pytest.raises(UserError, match=words):
            PrometheusSink(tmp_path, port)
    assert not list(tmp_path.iterdir())
