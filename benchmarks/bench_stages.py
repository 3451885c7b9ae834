"""What the stages before SFT are worth (paper section 5.2, Fig. 6 and 7), on `tabletop`.

    python -m benchmarks.bench_stages [TABLE ...] [--quick] [--json FILE] [--folder DIR]
        [--seeds 0 1 ...] [--jobs 1] [--figure FILE.png]

Every row of a table is a chain of stages: text to action, continued pretraining, and supervised
fine-tuning, each as its file in `configs/ablations/` says but for the settings that the row names.
T2A and CPT see neither the robot of SFT (an arm commanded in the frame of a turned base) nor one of
its four tasks; the backbone that all rows begin with knows the words of all four. All rows are
evaluated on the same held-out initial states. What is in `DIR` already (data, runs, results) is not
made again, so that rows which share a stage train it once.

Reported for each row: success over all seeds with its 95% interval (Wilson, of the episodes; what
another seed of the training changes is seen in the seeds themselves), that of the held-out task and
of the others, the success half way through SFT, and its action loss in the first and last sixth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from actors.supervise import supervise
from actors.text_to_action import text_to_action
from benchmarks.stage_data import HELD_OUT, data_in
from benchmarks.stage_figure import draw_tables
from vlarl.config.load import load_config
from vlarl.evaluation.statistics import wilson
from vlarl.runs import RunFolder

CONFIGS = {name: f"configs/ablations/{name}.yaml" for name in ("t2a", "images", "cpt", "sft")}
BACKBONE = "tabletop-sft"
_RATE = "eval_success_rate"
_T2A, _FLOW = "supervised.data.t2a", "supervised.flow"
_QUICK = {
    "t2a": ("supervised.batch_size=4", "supervised.micro_batch=2"),
    "images": ("supervised.batch_size=4",),
    "cpt": ("supervised.batch_size=8",),
    "sft": (
        "supervised.batch_size=4",
        "supervised.eval_every=1",
        "evaluation.episodes=4",
        "env.envs_per_server=4",
    ),
}
_FEW_STEPS = ("supervised.steps=2", "supervised.optimizer.warmup_steps=1", "supervised.log_every=1")


@dataclass(frozen=True)
class Row:
    """The stages of one row, and the settings of each that differ from its file."""

    t2a: tuple[str, ...] | None = ()
    """None: the action expert starts at random."""
    images: tuple[str, ...] | None = None
    """Instead of `t2a`."""
    cpt: tuple[str, ...] | None = None
    """None: SFT follows at once, as in the paper's ablations of T2A."""
    sft: tuple[str, ...] = ()
    few: bool = False
    """Whether SFT has a tenth of the demonstrations."""
    fresh_backbone: bool = False
    """Whether SFT takes the backbone as it was before all stages, and the expert alone from them
    (paper Fig. 7b)."""


def _share(value: float, *more: str) -> tuple[str, ...]:
    return (f"{_T2A}.synthetic_share={value}", *more)


_CHUNKS = (f"{_T2A}.prediction=chunk", "supervised.batch_size=64", "supervised.micro_batch=16")
"""About as many action tokens in a batch as 16 whole trajectories have."""
_BETA, _NORMAL = f"{_FLOW}.tau_distribution=beta", f"{_FLOW}.tau_distribution=logit_normal"
_TIMES = {
    # Without the numbers of the Beta distribution that sft.yaml has: they would say nothing.
    "logit-normal": (_NORMAL, f"{_FLOW}.alpha=1.0", f"{_FLOW}.beta=1.5"),
    "Beta": (_BETA,),
}
_GENTLE = tuple(
    f"supervised.optimizer.learning_rates.{part}=2.0e-5" for part in ("vision", "language")
)
"""A tenth of what `cpt.yaml` has for the backbone."""
_WITHOUT_QUESTIONS = ("supervised.data.mixture.questions.weight=0",)

_STARTS = {
    "random expert": Row(t2a=None),
    "T2A": Row(),
    "CPT without T2A": Row(t2a=None, cpt=()),
    "T2A, CPT": Row(cpt=()),
    "T2A, CPT; fresh backbone": Row(cpt=(), fresh_backbone=True),
}
TABLES: dict[str, dict[str, Row]] = {
    "start": _STARTS,
    "start_few": {title: replace(row, few=True) for title, row in _STARTS.items()},
    "prediction": {
        "trajectories, 20% synthetic": Row(),
        "chunks, 20% synthetic": Row(t2a=_CHUNKS),
        "trajectories, real alone": Row(t2a=_share(0.0)),
        "chunks, real alone": Row(t2a=_share(0.0, *_CHUNKS)),
    },
    "flow_times": {
        f"{early} at T2A, {late} at SFT": Row(
            t2a=() if early == "logit-normal" else times,
            sft=() if late == "Beta" else more,
        )
        for (early, times), (late, more) in product(_TIMES.items(), repeat=2)
    },
    "synthetic": {
        f"{share:.0%} synthetic": Row(t2a=() if share == 0.2 else _share(share))
        for share in (0.0, 0.2, 1.0)
    },
    "vision_language": {
        "CPT with questions": Row(cpt=()),
        "CPT without questions": Row(cpt=_WITHOUT_QUESTIONS),
    },
    "backbone_rate": {
        "CPT at 2e-4": Row(cpt=()),
        "CPT at 2e-5": Row(cpt=_GENTLE),
        "CPT at 2e-4, few": Row(cpt=(), few=True),
        "CPT at 2e-5, few": Row(cpt=_GENTLE, few=True),
    },
    "beta": {
        "Beta(1.5, 1): more at the noise": Row(),
        "Beta(1, 1.5): more at the actions": Row(sft=(f"{_FLOW}.alpha=1.0", f"{_FLOW}.beta=1.5")),
    },
    "images": {
        "chunks, real alone": Row(t2a=_share(0.0, *_CHUNKS)),
        "chunks, real alone, with images": Row(t2a=None, images=()),
    },
    "duration": {
        "no T2A": Row(t2a=None),
        "250 steps": Row(t2a=("supervised.steps=250",)),
        "1000 steps": Row(),
        "4000 steps": Row(t2a=("supervised.steps=4000",)),
    },
}


@dataclass(frozen=True)
class _Stage:
    """One training: all that its result depends on."""

    name: str
    overrides: tuple[str, ...]

    def config(self, seed: int, folder: Path) -> list[str]:
        return [*self.overrides, f"seed={seed}", f"output={folder}", f"name={self.folder(seed)}"]

    def folder(self, seed: int) -> str:
        recipe = Path(CONFIGS[self.name]).read_text() + "\n".join(self.overrides)
        return f"{self.name}_{hashlib.sha256(recipe.encode()).hexdigest()[:10]}_{seed}"


class Chain:
    """Trains the stages of rows in one folder, with one seed."""

    def __init__(self, folder: Path, seed: int, quick: bool = False) -> None:
        self._folder, self._seed, self._quick = folder, seed, quick
        self._data = data_in(folder)

    def play(self, row: Row) -> dict[str, Any]:
        """Success in the course of SFT and at its end, in all and by task."""
        start, path = self._before(row)
        data = self._data["few" if row.few else "sft"]
        run = self._trained(self._stage("sft", (*start, *data, *row.sft)))
        logged, config = RunFolder(run).metrics(), load_config(run)
        judged = [one for one in logged if _RATE in one]
        losses = [one["action_loss"] for one in logged if "action_loss" in one]
        sixth = max(1, len(losses) // 6)
        tasks = {key: rate for key, rate in judged[-1].items() if key.startswith(f"{_RATE}/")}
        return {
            "seed": self._seed,
            "episodes": config.evaluation.episodes,
            "first_loss": fmean(losses[:sixth]),
            "last_loss": fmean(losses[-sixth:]),
            "curve": {str(one["step"]): one[_RATE] for one in judged},
            "tasks": {key.removeprefix(f"{_RATE}/"): rate for key, rate in tasks.items()},
            "runs": [*path, run.name],
        }

    def _before(self, row: Row) -> tuple[tuple[str, ...], list[str]]:
        """Settings that say where SFT starts, and the runs it comes from."""
        start, path = _random_expert(), []
        for name, more in (("t2a", row.t2a), ("images", row.images), ("cpt", row.cpt)):
            if more is None:
                continue
            first = start if name == "cpt" else ()
            run = self._trained(self._stage(name, (*first, *self._data[name], *more)))
            path.append(run.name)
            start = (f"model.init.weights={run}",)
        if row.fresh_backbone:
            start = (*_random_expert()[1:], f"model.init.expert={self._folder / path[-1]}")
        return start, path

    def _stage(self, name: str, overrides: tuple[str, ...]) -> _Stage:
        if self._quick:
            overrides = (*overrides, *_QUICK[name], *_FEW_STEPS)
        return _Stage(name, overrides)

    def _trained(self, stage: _Stage) -> Path:
        """The run's folder, after training it or what is left of it."""
        run = self._folder / stage.folder(self._seed)
        config = load_config(CONFIGS[stage.name], stage.config(self._seed, self._folder))
        last = run / "trained"
        if last.exists():
            return run
        if run.exists():
            config = load_config(
                CONFIGS[stage.name], [*stage.config(self._seed, self._folder), "resume=auto"]
            )
        found = text_to_action(config) if stage.name == "t2a" else supervise(config)
        if found["interrupted"]:
            raise KeyboardInterrupt
        last.write_text("")
        return run


def _random_expert() -> tuple[str, ...]:
    return (
        "model.preset=tiny-pooled",
        f"model.init.backbone={BACKBONE}",
        "model.init.contract=data",
    )


def _play_seed(
    folder: Path, names: Sequence[str], quick: bool, seed: int
) -> Mapping[str, Mapping[str, Any]]:
    """Every row of these tables with one seed."""
    chain = Chain(folder, seed, quick)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        for title, row in TABLES[name].items():
            played = chain.play(row)
            found.setdefault(name, {})[title] = played
            rate = _last(played["curve"])
            print(f"{name}: {title}, seed {seed}: {rate:.1%}", flush=True)
    return found


def run(
    folder: Path,
    names: Sequence[str] = tuple(TABLES),
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    quick: bool = False,
) -> dict[str, Any]:
    """Play every row of the tables with every seed; runs stay in `folder`.

    With several `jobs` that many seeds are played at a time, each in a process of its own.
    """
    data_in(folder, few=quick)
    play = partial(_play_seed, folder, names, quick)
    if jobs == 1:
        played = [play(seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            played = list(pool.map(play, seeds))
    tables = {
        name: {title: _pooled([one[name][title] for one in played]) for title in TABLES[name]}
        for name in names
    }
    return {"seeds": list(seeds), "held_out_task": HELD_OUT, "tables": tables}


def _pooled(played: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row over all of its seeds."""
    episodes = sum(one["episodes"] for one in played)
    won = sum(round(_last(one["curve"]) * one["episodes"]) for one in played)
    tasks = [one["tasks"] for one in played]
    known = [rate for own in tasks for task, rate in own.items() if task != HELD_OUT]
    steps = played[0]["curve"]
    return {
        "success_rate": won / episodes,
        "interval": list(wilson(won, episodes)),
        "episodes": episodes,
        "held_out": fmean(own[HELD_OUT] for own in tasks),
        "others": fmean(known),
        "first_loss": fmean(one["first_loss"] for one in played),
        "last_loss": fmean(one["last_loss"] for one in played),
        "seeds": {one["seed"]: _last(one["curve"]) for one in played},
        "curve": {step: fmean(one["curve"][step] for one in played) for step in steps},
    }


def _last(curve: Mapping[str, float]) -> float:
    return list(curve.values())[-1]


def table(result: Mapping[str, Any]) -> str:
    """The result as lines of text, in Markdown."""
    return "\n".join(_lines(result))


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    seeds = " ".join(f"seed {seed}" for seed in result["seeds"])
    for name, rows in result["tables"].items():
        yield f"\n{name} (each: {seeds})\n"
        yield (
            "| | success | 95% interval | each seed | held-out task | others | half way "
            "| loss, first sixth | last |"
        )
        yield "|---|---|---|---|---|---|---|---|---|"
        for title, row in rows.items():
            low, high = row["interval"]
            each = ", ".join(f"{rate:.1%}" for rate in row["seeds"].values())
            half = next(iter(row["curve"].values()))
            yield (
                f"| {title} | {row['success_rate']:.1%} | {low:.1%} to {high:.1%} | {each} "
                f"| {row['held_out']:.1%} | {row['others']:.1%} | {half:.1%} "
                f"| {row['first_loss']:.3f} | {row['last_loss']:.3f} |"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)} (all)")
    parser.add_argument("--quick", action="store_true", help="a few steps and episodes")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--folder", type=Path, default=Path("runs/stages"), help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--figure", type=Path, help="also draw the tables")
    arguments = parser.parse_args()
    names = arguments.tables or list(TABLES)
    if unknown := set(names) - set(TABLES):
        parser.error(f"{', '.join(sorted(unknown))}: tables are {', '.join(TABLES)}")
    if arguments.quick:
        with tempfile.TemporaryDirectory() as name:
            result = run(Path(name), names, (0,), quick=True)
    else:
        result = run(arguments.folder, names, arguments.seeds, arguments.jobs)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))
    if arguments.figure:
        arguments.figure.write_bytes(draw_tables(result["tables"]))


if __name__ == "__main__":
    main()
