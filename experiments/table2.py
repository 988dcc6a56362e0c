"""Table II: the paper's baselines and SLMRec-FAC, recall, NDCG and precision at 10.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/table2.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     5 systems × 16 settings, then the chosen ones for the other seeds. On DiffMM's TikTok two settings of each and
          one seed took 40 minutes of one CPU core, 28 of them MMGCN's.
Result:   there (experiments/results/table2.md), recall@10: LightGCN .0649, SLMRec-FAC .0615, MMGCN .0491, VBPR .0096,
          MF-BPR .0067. Not run on the paper's data.

Each system's learning rate and weight decay are chosen on validation among the paper's. Table III with the same --out
uses these runs. Data without a split need --split mmrec, which divides each user's interactions 8:1:1.
"""

import sys
from dataclasses import dataclass

import output
import paper
import sweep

from slmrec_jax.figures import draw_comparison

NAMES = (*paper.BASELINES, "SLMRec-FAC")


@dataclass(frozen=True)
class Flags(sweep.Flags):
    """Flags of Tables II and III."""

    learning_rates: tuple[float, ...] = paper.GRID
    """Each system's is chosen on validation."""
    weight_decays: tuple[float, ...] = paper.GRID
    """Each system's is chosen on validation."""


def main(flags: Flags) -> None:
    dataset = sweep.load(flags)
    found = sweep.run(paper.systems(sweep.base(flags), NAMES), dataset, flags)
    figures = paper.FIGURES[flags.paper] if flags.paper else {}
    rows = [{"system": name, **output.measured(runs, flags, figures.get(name))} for name, runs in found.items()]
    output.write("table2", rows, dataset, flags, output.about_figures(flags))
    draw_comparison(output.means(found), paper.METRICS, flags.out / "table2.png", f"Table II on {dataset.name}, test")


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
