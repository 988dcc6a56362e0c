"""A data set with validation and test exchanged, to stand beside figures that were made on such a split.

The public logs of XMUDM/DA-MRS on TikTok are of this kind: its converter takes DiffMM's validation for test and its
test for validation. Use it for nothing else.

Command:  python experiments/exchanged.py --data PATH/tiktok --out runs/tiktok-exchanged
          slmrec-jax compare --data runs/tiktok-exchanged --protocol mmrec --models lightgcn,bm3,simgcl \
              --out runs/exchanged
          slmrec-jax compare --config experiments/tiktok_slmrec.py --data runs/tiktok-exchanged --models slmrec:fac \
              --out runs/exchanged-tuned
Time:     seconds for the split, minutes for the comparisons.
Result:   docs/results.md has the table.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import sweep

from slmrec_jax import data


@dataclass(frozen=True)
class Flags:
    """Flags of this experiment."""

    data: str
    """The folder of a data set that is divided."""
    out: Path
    """The new folder for the data set in the package's own format."""


def main(flags: Flags) -> None:
    dataset = data.load(flags.data)
    exchanged = replace(dataset, name=f"{dataset.name}, exchanged", valid=dataset.test, test=dataset.valid)
    data.write_store(exchanged, flags.out)


if __name__ == "__main__":
    sys.exit(sweep.command(Flags, main))
