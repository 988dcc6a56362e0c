"""Figure 4: the training loss of SLMRec by epoch, with each task.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig4_convergence.py --data PATH/tiktok --epochs 100
Time:     3 runs of 100 epochs for each seed. On DiffMM's TikTok 20 epochs took 5 minutes of one CPU core.
Result:   there (experiments/results/fig4_convergence.md) the loss falls from 8.6 or 8.7 after the first epoch to 6.28
          with FAC, 6.84 with FD and 6.82 with FM after 20; FAC's own part falls furthest. On MovieLens-100K
          (experiments/results/ml100k, three seeds, 12 minutes of one core) it is 6.82, 7.16 and 7.17 after 100. Not run
          on the paper's data.

The loss is the whole objective, the main loss plus α times the task's; the table has both. Early stopping is off, so
that all curves have the same length. The paper gives curves without figures.
"""

import statistics
import sys
from dataclasses import dataclass, replace

import output
import sweep

from slmrec_jax.figures import draw_lines

PARTS = ("loss", "main", "ssl")


@dataclass(frozen=True)
class Flags(sweep.TaskFlags):
    """Flags of figure 4."""

    epochs: int = 100


def main(flags: Flags) -> None:
    dataset = sweep.load(flags)
    config = sweep.base(flags)
    config = replace(config, eval=config.eval._replace(patience=None))
    points = {f"{task} convergence": replace(config, task=task) for task in flags.tasks}
    found = sweep.run(points, dataset, flags)
    rows, lines = [], {}
    for task in flags.tasks:
        runs = found[f"{task} convergence"]
        diverged = output.diverged(runs, flags)
        curve = {}
        for records in zip(*(run.history for run in runs), strict=True):  # an epoch of every seed
            losses = {part: statistics.fmean(record["losses"][part] for record in records) for part in PARTS}
            rows.append({"task": task, "epoch": records[0]["epoch"], **losses, "diverged": diverged})
            curve[float(records[0]["epoch"])] = (losses["loss"], 0.0)
        if curve:
            lines[task.upper()] = curve
        else:
            rows.append({"task": task, **dict.fromkeys(("epoch", *PARTS)), "diverged": diverged})
    output.write("fig4_convergence", rows, dataset, flags, "Means over seeds. The paper gives curves without figures.")
    title = f"Convergence, {dataset.name}"
    draw_lines(lines, flags.out / "fig4_convergence.png", title, x="epoch", y="training loss", log=False)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
