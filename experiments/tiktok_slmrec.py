"""SLMRec on TikTok (the DiffMM copy: 9,308 users, 6,710 items, visual and acoustic), tuned on validation alone.

Paper:    Tao et al., IEEE TMM 2022, doi:10.1109/TMM.2022.3187556
Command:  slmrec-jax compare --config experiments/tiktok_slmrec.py --data PATH/tiktok --models slmrec:none,slmrec:fac
              --seeds 0,1,2 --out runs/tiktok-tuned
Time:     about a minute for each of the six runs on two CPU cores.
Result:   test at best validation recall@20, mean ± deviation over three seeds, recall@10 / recall@20 / ndcg@20:
          with FAC .0742 ± .0006 / .1127 ± .0023 / .0495 ± .0010, without a task .0675 ± .0016 / .1074 ± .0022 /
          .0465 ± .0005. On validation they are level: recall@20 .1170 against .1176, ndcg@20 .0514 against .0507.
          Code of 28 November 2026.

The settings are rounded results of two searches by `slmrec-jax tune` (TPE, 32 trials of one seed, then 12 of two) on
validation recall@20, protocol mmrec, over learning rate, weight decay, main temperature, batch size, layers and fusion.
FAC's weight was then chosen among .01, .1 and .3 (validation recall@20 .1167, .1172, .1164; three seeds), with its
temperature left at .2. Differences from the published code: the mean of the modalities instead of an affine fusion, a
main temperature of 0.6 instead of 0.2, batch 512 instead of 2048, two layers instead of three.
"""

from dataclasses import replace

from slmrec_jax import Config, with_protocol
from slmrec_jax.config import OptimizerConfig, SLMRecConfig


def get_config() -> Config:
    return replace(
        with_protocol(Config(task="fac", batch_size=512, num_layers=2), "mmrec"),
        optimizer=OptimizerConfig(learning_rate=1.35e-3, weight_decay=1.2e-4),
        slmrec=SLMRecConfig(alpha=0.1, temperature=0.617, fusion="mean", popularity_correction=0.0),
    )
