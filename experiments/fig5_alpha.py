"""Figure 5: test recall@10 by the weight α of the self-supervised task, 0.01 to 1.0.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig5_alpha.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     not run yet; 3 tasks × 5 values for each seed.
Result:   not run yet.

The paper gives curves alone; what its Table III has for each task at the best value is drawn as a dashed line.
"""

import sys
from dataclasses import dataclass

import paper
import sweep


@dataclass(frozen=True)
class Flags(sweep.Flags):
    """What to train on, and how long."""

    tasks: tuple[paper.PaperTask, ...] = ("fd", "fm", "fac")
    alphas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5, 1.0)


def main(flags: Flags) -> None:
    axis = sweep.Axis("slmrec.alpha", "alpha", "weight α of the task", flags.alphas)
    figures = paper.best_figures(flags.paper, flags.tasks)
    sweep.curves("fig5_alpha", "SLMRec by α", axis, flags.tasks, sweep.base(flags), flags, figures, paper.BEST_NOTE)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
