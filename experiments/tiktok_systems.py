"""All systems on TikTok (the DiffMM copy: 9,308 users, 6,710 items, visual and acoustic), each with its defaults.

Papers:   Tao et al., IEEE TMM 2022 (SLMRec); Wei et al., WWW 2023 (MMSSL); docs/systems.md has those of the others.
Command:  slmrec-jax compare --config experiments/tiktok_systems.py --data PATH/tiktok --seeds 0,1,2 --out runs/tiktok
              --models popularity,itemknn,randomwalk,mf,lightgcn,vbpr,mmgcn,sgl,simgcl,bm3,freedom,mgcn,lattice,
              mmssl:paper,slmrec:none,slmrec:fac
Time:     one to two hours on two shared CPU cores, by the processor seconds of each system in docs/results.md.
Result:   test recall@20 at best validation, three seeds: docs/results.md has the table.

The defaults were chosen on validation recall@20 of seed 0 (docs/systems.md).
"""

from slmrec_jax import Config, with_protocol


def get_config() -> Config:
    return with_protocol(Config(), "mmrec")
