"""Figure 3: the self-supervised tasks without the main loss, by batch size: recall@10.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig3_task_alone.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     not run yet; 3 tasks × 5 batch sizes for each seed.
Result:   not run yet.

What a larger batch brings is more negatives. The paper's text gives recall@10 of FAC alone on Tiktok and Kwai, drawn
here as a dashed line; its other points are known from its curves only, so that none stand here.
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
    batch_sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048)


def main(flags: Flags) -> None:
    dataset = sweep.load(flags)
    config = replace(sweep.base(flags), main_weight=0.0)
    points = {
        f"{task} alone batch {size}": replace(config, task=task, batch_size=size)
        for task in flags.tasks
        for size in flags.batch_sizes
    }
    found = sweep.run(points, dataset, flags)
    published = paper.FAC_ALONE.get(flags.paper) if flags.paper else None
    rows = [
        {
            "task": task,
            "batch size": size,
            **sweep.measured(found[f"{task} alone batch {size}"], (published, None, None) if task == "fac" else None),
        }
        for task in flags.tasks
        for size in flags.batch_sizes
    ]
    note = (
        f"The paper's text gives {published:g} for FAC alone on {flags.paper}, without a batch size."
        if published
        else "The paper gives a curve alone: no figures."
    )
    sweep.write("fig3_task_alone", rows, dataset, flags, note)
    lines = {
        task.upper(): {
            float(row["batch size"]): (row[METRIC], row[f"{METRIC} sd"]) for row in rows if row["task"] == task
        }
        for task in flags.tasks
    }
    draw_lines(
        lines,
        flags.out / "fig3_task_alone.png",
        f"Tasks without the main loss, {dataset.name}",
        x="batch size",
        y=f"test {METRIC}",
        log=True,
        levels={"paper, FAC": published} if published else None,
    )


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
