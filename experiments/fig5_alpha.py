"""Figure 5: test recall@10 by the weight α of the self-supervised task, 0.01 to 1.0.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig5_alpha.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     3 tasks × 5 values for each seed. On DiffMM's TikTok three values, one seed and 20 epochs took 16 minutes of
          one CPU core, and the whole figure with three seeds on MovieLens-100K 41, with other work beside it.
Result:   there (experiments/results/fig5_alpha.md) recall@10 falls with α for every task, from .01 to 1: FD .0641 to
          .0519, FM .0633 to .0535, FAC .0600 to .0457. On MovieLens-100K (results/ml100k) FAC .158 to .149, FD .146
          to .090, FM .149 to .096. Not run on the paper's data.

The paper gives curves without figures. Table III's figure for each task at the best value is drawn as a dashed line.
"""

import sys
from dataclasses import dataclass

import output
import paper
import sweep


@dataclass(frozen=True)
class Flags(sweep.TaskFlags):
    """Flags of figure 5."""

    alphas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5, 1.0)


def main(flags: Flags) -> None:
    axis = output.Axis("slmrec.alpha", "alpha", "weight α of the task", flags.alphas)
    figures = paper.best_figures(flags.paper, flags.tasks)
    output.curves("fig5_alpha", "SLMRec by α", axis, sweep.base(flags), flags, figures, paper.BEST_NOTE)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
