"""The report page of a run: one `report.html` that needs no other file and no network.

Made from what the run folder holds (`evaluation.json`, `metrics.jsonl`, `videos/*.gif`,
`config.yaml`), so it can be rebuilt at any time; a part that is missing leaves its section out.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from vlarl.errors import UserError
from vlarl.evaluation.curves import draw_curves, draw_seconds, draw_tasks, panels_of
from vlarl.evaluation.results import significant_falls
from vlarl.runs import read_metrics

MAX_VIDEOS = 16
_GROUP = "all "
"""Before the name of a group, as in `all easy`."""
_MEAN = "mean of these"


def write_report(run: str | Path) -> Path:
    """Build `report.html` (and `curves.png`, `seconds.png`, `tasks.png` beside it) of a run folder.

    Raises:
        UserError: if there is no such run, or nothing in it to report.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder. Runs are written below `runs/`.")
    evaluation = _read_evaluation(folder)
    rows = read_metrics(folder / "metrics.jsonl")
    if not evaluation and not rows:
        raise UserError(
            f"{folder}: holds neither evaluation.json nor metrics.jsonl. "
            "Name the folder of one run, such as runs/NAME."
        )
    sections = [
        _summary(evaluation),
        _task_table(evaluation, folder),
        _metrics_section(evaluation),
        _paired_section(evaluation),
        _swap_section(evaluation),
        _curves_section(rows, folder),
        _seconds_section(rows, folder),
        _videos_section(folder),
        _config_section(folder),
    ]
    page = _PAGE.substitute(title=html.escape(folder.name), body="\n".join(filter(None, sections)))
    path = folder / "report.html"
    temporary = folder / "report.html.tmp"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def plain_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of success and 95% interval by task as text, for a terminal.

    Args:
        summaries: heading (`SFT`, `instruct`) -> summary as in `evaluation.json`, same tasks.
    """
    first = next(iter(summaries.values()))
    rows = [["task", *(cell for name in summaries for cell in (name, "95% interval")), "episodes"]]
    for task in [*first["tasks"], *_group_rows(first), "all"]:
        cells = [
            cell for summary in summaries.values() for cell in _rate_cells(_entry(summary, task))
        ]
        rows.append([task, *cells, str(_entry(first, task)["episodes"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def plain_metrics(summary: Mapping[str, Any]) -> str:
    """What a suite publishes beside success, a line each for a terminal; empty if nothing."""
    cells = _metric_rows(summary)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([name.ljust(widths[0]), mean.rjust(widths[1]), interval.rjust(widths[2])])
        for name, mean, interval in cells
    ]
    return "\n".join(lines)


def _metric_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Name, mean and interval over all episodes, of each metric."""
    rows = []
    for name, entry in summary.get("metrics", {}).items():
        interval = entry["interval"]
        shown = "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"
        rows.append([name, f"{entry['mean']:.3g}", shown])
    return rows


def _read_evaluation(folder: Path) -> dict[str, Any]:
    file = folder / "evaluation.json"
    if not file.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not JSON ({error}). Evaluate the run again.") from error
    return found


def _entry(summary: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """A row of a table: a task, `all`, or one of `_group_rows`."""
    if task == _MEAN:
        entry: Mapping[str, Any] = summary["mean_of_groups"]
    elif task.startswith(_GROUP):
        entry = summary["groups"][task.removeprefix(_GROUP)]
    else:
        entry = summary if task == "all" else summary["tasks"][task]
    return entry


def _group_rows(summary: Mapping[str, Any]) -> list[str]:
    """Rows of a suite's groups of tasks, and of their mean; none where it has none."""
    groups = [f"{_GROUP}{name}" for name in summary.get("groups", ())]
    return [*groups, _MEAN] if groups else []


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _rate_cells(entry: Mapping[str, Any]) -> list[str]:
    low, high = entry["interval"]
    return [_percent(entry["success_rate"]), f"{100 * low:.1f} to {100 * high:.1f}%"]


def _table(head: list[str], rows: list[list[str]], emphasize_last: bool = False) -> str:
    def line(cells: list[str], tag: str, style: str = "") -> str:
        inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr{style}>{inner}</tr>"

    last = len(rows) - 1
    body = "".join(
        line(row, "td", ' class="total"' if emphasize_last and index == last else "")
        for index, row in enumerate(rows)
    )
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def _image(data: bytes, kind: str, text: str) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{encoded}">'


def _summary(evaluation: Mapping[str, Any]) -> str:
    if "sft" not in evaluation:
        return ""
    first = evaluation["sft"]
    tiles = [("SFT", _percent(first["success_rate"]))]
    if "instruct" in evaluation:
        tiles.append(("Instruct", _percent(evaluation["instruct"]["success_rate"])))
    if "paired" in evaluation:
        tiles.append(("Gain, points", _points(evaluation["paired"]["difference"])))
    tiles.append(("Episodes", str(first["episodes"])))
    if "seconds" in evaluation:
        tiles.append(("Wall clock", f"{evaluation['seconds'] / 60:.1f} min"))
    inner = "".join(
        f"<div class=tile><b>{html.escape(value)}</b><span>{name}</span></div>"
        for name, value in tiles
    )
    machine = evaluation.get("machine", "")
    note = f"<p class=note>Measured on {html.escape(str(machine))}.</p>" if machine else ""
    return f"<div class=tiles>{inner}</div>{note}"


def _task_table(evaluation: Mapping[str, Any], folder: Path) -> str:
    names = {"sft": "SFT", "instruct": "Instruct"}
    present = {key: name for key, name in names.items() if key in evaluation}
    if not present:
        return ""
    head = ["Task"]
    for name in present.values():
        head += [name, "95% interval"]
    rows = []
    first = evaluation[next(iter(present))]
    for task in [*first["tasks"], *_group_rows(first), "all"]:
        entries = [_entry(evaluation[key], task) for key in present]
        cells = [cell for entry in entries for cell in _rate_cells(entry)]
        rows.append([task.replace("_", " "), *cells, str(entries[0]["episodes"])])
    figure = draw_tasks({name: evaluation[key] for key, name in present.items()})
    (folder / "tasks.png").write_bytes(figure)
    seed = evaluation[next(iter(present))]["seed"]
    note = (
        "Deterministic evaluation on held-out initial states that training never meets, from seed "
        f"{seed} on; intervals are Wilson's."
    )
    return (
        f"<h2>Success by task</h2>{_table([*head, 'Episodes'], rows, emphasize_last=True)}"
        f"<p class=note>{note}</p>{_image(figure, 'png', 'success by task')}"
    )


def _metrics_section(evaluation: Mapping[str, Any]) -> str:
    """What the suite's own tables hold beside success."""
    names = {"sft": "SFT", "instruct": "Instruct"}
    rows = [
        [name, *row] for key, name in names.items() for row in _metric_rows(evaluation.get(key, {}))
    ]
    if not rows:
        return ""
    note = "As the suite's published tables have them: means over the same episodes."
    return (
        f"<h2>Beside success</h2>{_table(['Policy', 'Figure', 'Mean', '95% interval'], rows)}"
        f"<p class=note>{note}</p>"
    )


def _paired_section(evaluation: Mapping[str, Any]) -> str:
    if "paired" not in evaluation:
        return ""
    paired = evaluation["paired"]
    rows = []
    for task in [*paired["tasks"], "all"]:
        entry = _entry(paired, task)
        low, high = entry["interval"]
        rows.append(
            [
                task.replace("_", " "),
                _points(entry["difference"]),
                f"{_points(low)} to {_points(high)}",
                str(entry["gained"]),
                str(entry["lost"]),
                f"{entry['p_value']:.2g}",
            ]
        )
    head = ["Task", "Difference", "95% interval", "Gained", "Lost", "McNemar p"]
    falls = significant_falls(dict(paired))
    verdict = f"Significant falls: {', '.join(falls)}." if falls else "No task falls significantly."
    low, high = paired["interval"]
    clear = "excludes" if low > 0 or high < 0 else "does not exclude"
    note = (
        f"In percentage points, episode against episode from the same initial state "
        f"({paired['method']}). The interval over all tasks {clear} zero. {verdict}"
    )
    return (
        f"<h2>Paired difference</h2>{_table(head, rows, emphasize_last=True)}"
        f"<p class=note>{html.escape(note)}</p>"
    )


def _swap_section(evaluation: Mapping[str, Any]) -> str:
    swapped = evaluation.get("swapped")
    if not swapped:
        return ""
    rows = []
    for key, name in (("sft", "SFT"), ("instruct", "Instruct")):
        if key in swapped:
            own, named = swapped[key]["own"], swapped[key]["named"]
            cells = [*_rate_cells(own), *_rate_cells(named)]
            rows.append([name, *cells, str(swapped[key]["episodes"])])
    head = ["Policy", "Scene's own task", "95%", "Task that was named", "95%", "Episodes"]
    note = (
        "The same scenes, told another task's instruction. A policy that listens fails the "
        "scene's own task and does the one it was told."
    )
    return f"<h2>Swapped instructions</h2>{_table(head, rows)}<p class=note>{note}</p>"


def _curves_section(rows: list[dict[str, Any]], folder: Path) -> str:
    if not panels_of(rows):
        return ""
    figure = draw_curves(rows)
    (folder / "curves.png").write_bytes(figure)
    return f"<h2>Training</h2>{_image(figure, 'png', 'training curves')}"


def _seconds_section(rows: list[dict[str, Any]], folder: Path) -> str:
    """Where the time went, of a run whose iterations say so."""
    timed = [row for row in rows if row.get("iteration_seconds")]
    if not timed:
        return ""
    figure = draw_seconds(timed)
    (folder / "seconds.png").write_bytes(figure)
    return f"<h2>Where the time went</h2>{_image(figure, 'png', 'seconds by cause')}"


def _videos_section(folder: Path) -> str:
    files = sorted((folder / "videos").glob("*.gif"))
    if not files:
        return ""
    figures = "".join(
        f"<figure>{_image(file.read_bytes(), 'gif', file.stem)}"
        f"<figcaption>{html.escape(file.stem.replace('_', ' '))}</figcaption></figure>"
        for file in files[:MAX_VIDEOS]
    )
    left_out = len(files) - MAX_VIDEOS
    more = f"<p class=note>{left_out} more in videos/.</p>" if left_out > 0 else ""
    return f"<h2>Rollouts</h2><div class=videos>{figures}</div>{more}"


def _config_section(folder: Path) -> str:
    file = folder / "config.yaml"
    if not file.exists():
        return ""
    text = html.escape(file.read_text(encoding="utf-8"))
    return f"<h2>Config</h2><details><summary>resolved</summary><pre>{text}</pre></details>"


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .5rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem }
.tile { background: var(--soft); border-radius: .5rem; padding: .6rem 1rem; min-width: 6rem }
.tile b { display: block; font-size: 1.4rem } .tile span, .note { opacity: .75; font-size: .88rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } .total td { font-weight: 600 }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem }
.videos { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
figcaption { font-size: .82rem; opacity: .75 } pre { overflow-x: auto; font-size: .82rem }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")
