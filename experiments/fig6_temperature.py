"""Figure 6: test recall@10 by the temperature τ of the self-supervised task, 0.1 to 1.0.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig6_temperature.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     not run yet; 3 tasks × 4 values for each seed.
Result:   not run yet.

The paper gives curves alone; what its Table III has for each task at the best value is drawn as a dashed line.
"""

import sys
from dataclasses import dataclass, replace

import paper
import sweep

from slmrec_jax.figures import draw_lines

METRIC = paper.METRICS[0]


@dataclass(frozen=True)
class Flags(sweep.Flags):
    """What to train on, and how long."""

    tasks: tuple[paper.PaperTask, ...] = ("fd", "fm", "fac")
    temperatures: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)


def main(flags: Flags) -> None:
    dataset = sweep.load(flags)
    config = sweep.base(flags)
    points = {
        f"{task} temperature {value:g}": replace(
            config, task=task, slmrec=replace(config.slmrec, ssl_temperature=value)
        )
        for task in flags.tasks
        for value in flags.temperatures
    }
    found = sweep.run(points, dataset, flags)
    figures = paper.FIGURES[flags.paper] if flags.paper else {}
    best = {task: figures[paper.NAMES[task]] for task in flags.tasks if figures}
    rows = [
        {
            "task": task,
            "temperature": value,
            **sweep.measured(found[f"{task} temperature {value:g}"], best.get(task)),
        }
        for task in flags.tasks
        for value in flags.temperatures
    ]
    sweep.write(
        "fig6_temperature",
        rows,
        dataset,
        flags,
        "The paper gives curves; the figures beside ours are its best, of Table III.",
    )
    lines = {
        task.upper(): {row["temperature"]: (row[METRIC], row[f"{METRIC} sd"]) for row in rows if row["task"] == task}
        for task in flags.tasks
    }
    draw_lines(
        lines,
        flags.out / "fig6_temperature.png",
        f"SLMRec by τ, {dataset.name}",
        x="temperature τ of the task",
        y=f"test {METRIC}",
        log=True,
        levels={f"paper, {task.upper()}": level for task, (level, *_) in best.items()},
    )


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
