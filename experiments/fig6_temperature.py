"""Figure 6: test recall@10 by the temperature τ of the self-supervised task, 0.1 to 1.0.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig6_temperature.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     3 tasks × 4 values for each seed. On DiffMM's TikTok three values, one seed and 20 epochs took 15 minutes of
          one CPU core, a third of them shared with figure 5.
Result:   there (experiments/results/fig6_temperature.md) recall@10 is between .053 and .061 for every task and τ, the
          highest at 1.0 for FM and FAC and at 0.2 for FD. On MovieLens-100K (results/ml100k, three seeds), from τ 0.1
          to 1.0: FAC .154 to .156, FM .116 to .151, FD .112 to .135. Not run on the paper's data.

The paper gives curves without figures. Table III's figure for each task at the best value is drawn as a dashed line.
"""

import sys
from dataclasses import dataclass

import output
import paper
import sweep


@dataclass(frozen=True)
class Flags(sweep.TaskFlags):
    """Flags of figure 6."""

    temperatures: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)


def main(flags: Flags) -> None:
    axis = output.Axis("slmrec.ssl_temperature", "temperature", "temperature τ of the task", flags.temperatures)
    figures = paper.best_figures(flags.paper, flags.tasks)
    output.curves("fig6_temperature", "SLMRec by τ", axis, sweep.base(flags), flags, figures, paper.BEST_NOTE)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
