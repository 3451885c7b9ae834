"""The report page, its curves and its videos, from the files of a run folder."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vlarl.config.load import dump_config, load_config
from vlarl.errors import UserError
from vlarl.evaluation.curves import draw_curves, running_mean
from vlarl.evaluation.report import plain_table, write_report
from vlarl.evaluation.results import Outcome, SwapOutcome, compare, summarize, summarize_swap
from vlarl.evaluation.video import write_gif
from vlarl.runs import RunFolder


def evaluation():
    def outcomes(wins):
        return [
            Outcome(task, seed, seed < wins, 20)
            for task in ("put_<spoon>", "b")
            for seed in range(8)
        ]

    before, after = summarize(outcomes(3), 7), summarize(outcomes(8), 7)
    swap = summarize_swap([SwapOutcome("b", "put_<spoon>", s, False, True, 9) for s in range(5)], 7)
    return {
        "sft": before,
        "instruct": after,
        "paired": compare(before, after),
        "swapped": {"sft": swap, "instruct": swap},
        "seconds": 90.0,
        "machine": "a test",
    }


def test_a_run_that_says_its_seconds_shows_where_they_went(tmp_path):
    run = RunFolder(tmp_path)
    run.log(1, iteration_seconds=9.0, policy_seconds=4.0, update_seconds=3.0)
    run.log(2, iteration_seconds=8.0, policy_seconds=4.0, evaluation_seconds=5.0)
    text = write_report(tmp_path).read_text()
    assert "Where the time went" in text
    assert (tmp_path / "seconds.png").read_bytes().startswith(b"\x89PNG")


def full_run(folder):
    run = RunFolder(folder)
    (folder / "evaluation.json").write_text(json.dumps(evaluation()))
    dump_config(load_config(None), folder / "config.yaml")
    for step in range(30):
        run.log(step, success_rate=step / 30, approximate_kl=0.01, **{"success_rate/b": 0.5})
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    write_gif(run.videos / "spoon_instruct.gif", frames, 5, "put the spoon")
    return run


def test_report_holds_everything_in_one_file(tmp_path):
    full_run(tmp_path)
    text = write_report(tmp_path).read_text()
    for words in ("37.5%", "100.0%", "+62.5", "Swapped instructions", "excludes zero", "1.5 min"):
        assert words in text
    assert "put &lt;spoon&gt;" in text
    assert "put <spoon>" not in text
    assert text.count("data:image/png") == 2
    assert text.count("data:image/gif") == 1
    assert "minibatch: 256" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert (tmp_path / "curves.png").exists()


def test_report_rebuilds_identically(tmp_path):
    full_run(tmp_path)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_report_of_metrics_alone_and_of_an_evaluation_alone(tmp_path):
    RunFolder(tmp_path / "a").log(1, action_loss=0.5)
    assert "Training" in write_report(tmp_path / "a").read_text()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "evaluation.json").write_text(json.dumps({"sft": evaluation()["sft"]}))
    text = write_report(tmp_path / "b").read_text()
    assert "Success by task" in text
    assert "Training" not in text
    assert "Instruct" not in text


def test_report_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        write_report(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither"):
        write_report(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        write_report(tmp_path)


def test_plain_table_has_a_line_for_each_task_and_the_total():
    found = evaluation()
    lines = plain_table({"SFT": found["sft"], "instruct": found["instruct"]}).splitlines()
    assert [line.split()[0] for line in lines] == ["task", "put_<spoon>", "b", "all"]
    assert len({len(line) for line in lines}) == 1
    assert "37.5%" in lines[-1]
    assert "100.0%" in lines[-1]


def test_curves_leave_out_missing_values():
    rows = [{"step": 1, "success_rate": None}, {"step": 2, "success_rate": 0.5}]
    picture = Image.open(io.BytesIO(draw_curves(rows)))
    assert picture.width > 300
    with pytest.raises(ValueError, match="panel"):
        draw_curves([{"step": 1, "something": 2}])


def test_running_mean_by_hand():
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2) == pytest.approx([2, 3, 5, 7])


def test_gif_keeps_frames_size_and_color(tmp_path):
    frames = np.zeros((4, 8, 10, 3), np.uint8)
    for index in range(4):
        frames[index, :, : 2 * index + 2] = (250, 10, 10)
    write_gif(tmp_path / "deep" / "a.gif", frames, 5, "", scale=2)
    with Image.open(tmp_path / "deep" / "a.gif") as gif:
        assert (gif.n_frames, gif.size) == (4, (20, 16))
        gif.seek(2)
        back = np.asarray(gif.convert("RGB").resize((10, 8), Image.Resampling.NEAREST)).astype(int)
    assert np.abs(back - frames[2]).max() <= 12
    with pytest.raises(ValueError, match="shape"):
        write_gif(tmp_path / "b.gif", frames[:0], 5)


def test_a_long_caption_is_shown_to_its_end(tmp_path):
    """What the episode came to is said last."""
    frames = np.full((2, 64, 64, 3), 128, np.uint8)
    name = "object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    last = {}
    for caption in ("a: success", f"{name}: success", f"{name}: failure"):
        write_gif(tmp_path / "a.gif", frames, 5, caption)
        with Image.open(tmp_path / "a.gif") as gif:
            assert gif.width == 192
            last[caption] = np.asarray(gif.convert("L"))[192:].astype(int)
    short, success, failure = last.values()
    assert success.shape[0] == failure.shape[0] > short.shape[0]
    # Each file has a palette of its own.
    different = np.abs(success - failure) > 20
    assert not different[:-16].any()
    assert different[-16:].any()
    assert (success[:, -3:] > 200).all(), "nothing is cut at the right"
