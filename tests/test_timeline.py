"""The timeline: nothing while off, spans that fit together, a trace that Chrome's viewer reads."""

import json
import pickle
import time

from vlarl.timeline import Span, Timeline, write_trace


def test_nothing_is_kept_while_off():
    timeline = Timeline("learner")
    with timeline.span("learner", "update"):
        timeline.open("env server 0", "chunk")
        timeline.close("env server 0")
        timeline.add("learner", "step", time.perf_counter())
    assert timeline.recorded() == []
    assert timeline.span("a", "b") is timeline.span("c", "d")


def test_spans_are_what_was_done_while_it_recorded():
    timeline = Timeline("learner")
    timeline.open("env server 0", "before")
    timeline.record()
    timeline.close("env server 0")
    before = time.time_ns()
    with timeline.span("learner", "update"):
        started = time.perf_counter()
        timeline.open("env server 0", "chunk")
        timeline.open("env server 0", "the one that is open stays")
        timeline.add("learner", "step", started)
        timeline.close("env server 0")
    timeline.open("env server 0", "reset")
    spans = timeline.recorded()
    after = time.time_ns()
    assert [span.name for span in spans] == ["step", "chunk", "update", "reset"]
    step, chunk, update, reset = spans
    assert update.begin <= step.begin <= step.end <= update.end
    assert update.begin <= chunk.begin <= chunk.end <= update.end <= reset.begin <= reset.end
    # The wall clock, within what it may be set by meanwhile.
    assert before - 10**8 < update.begin
    assert reset.end < after + 10**8
    assert timeline.recorded() == []
    assert pickle.loads(pickle.dumps(spans)) == spans


def test_trace_has_a_process_and_a_track_for_each(tmp_path):
    spans = [
        Span("learner", "learner", "update", 5_000, 9_000),
        Span("worker 1", "env server 0", "chunk", 2_000, 3_500),
        Span("learner", "worker", "policy", 1_000, 2_000),
    ]
    write_trace(tmp_path / "profile.json", spans)
    events = json.loads((tmp_path / "profile.json").read_text())["traceEvents"]
    names = {
        (e["name"], e["pid"], e["tid"]): e["args"]["name"]
        for e in events
        if e["ph"] == "M" and e["name"].endswith("_name")
    }
    assert sorted(names.values()) == sorted(
        ["learner", "worker 1", "learner", "worker", "env server 0"]
    )
    found = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in found] == [
        ("policy", 0.0, 1.0),
        ("chunk", 1.0, 1.5),
        ("update", 4.0, 4.0),
    ]
    for event, span in zip(found, sorted(spans, key=lambda s: s.begin), strict=True):
        assert names["process_name", event["pid"], 0] == span.process
        assert names["thread_name", event["pid"], event["tid"]] == span.track
