"""Figure 3: the self-supervised tasks without the main loss, by batch size: recall@10.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  python experiments/fig3_task_alone.py --data PATH/tiktok --paper tiktok --seeds 0 1 2
Time:     3 tasks × 5 batch sizes for each seed. On DiffMM's TikTok three batch sizes, one seed and 10 epochs took 13
          minutes of one CPU core, 5 of them FD's at batch 256.
Result:   there (experiments/results/fig3_task_alone.md) recall@10 of FAC alone is .036 to .045, of FD and FM alone .010
          to .018, with no trend by batch size. On MovieLens-100K (results/ml100k, three seeds) FAC has
          .111 to .117, FM .033 to .038, and FD .020 to .030, more with each larger batch. Not run on the paper's data.

A larger batch has more negatives. The paper's text gives recall@10 of FAC alone on Tiktok and Kwai, drawn as a dashed
line. It shows the other points as curves without figures.
"""

import sys
from dataclasses import dataclass, replace

import output
import paper
import sweep


@dataclass(frozen=True)
class Flags(sweep.TaskFlags):
    """Flags of figure 3."""

    batch_sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048)


def main(flags: Flags) -> None:
    axis = output.Axis("batch_size", "batch size", "batch size", flags.batch_sizes)
    config = replace(sweep.base(flags), main_weight=0.0)
    published = paper.FAC_ALONE.get(flags.paper) if flags.paper else None
    note = (
        f"The paper's text gives {published:g} for FAC alone on {flags.paper}, without a batch size."
        if published
        else "The paper gives curves without figures."
    )
    figures = {"fac": (published, None, None)}
    output.curves("fig3_task_alone", "Tasks without the main loss", axis, config, flags, figures, note)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
