"""SLMRec with fine-and-coarse spaces on TikTok (the DiffMM copy: 9,308 users, 6,710 items, visual and acoustic).

Paper:    Tao et al., "Self-Supervised Learning for Multimedia Recommendation", IEEE TMM 2022.
Command:  slmrec-jax compare --config experiments/tiktok_fac.py --data PATH/tiktok --models slmrec --seeds 0,1,2
Time:     about two minutes a seed on two CPU cores.
Result:   test recall@20 0.1010 ± 0.0022, ndcg@20 0.0410 ± 0.0016 (protocol mmrec, three seeds, best validation epoch);
          the main loss alone (--models slmrec:none) 0.1008 ± 0.0008 and 0.0422 ± 0.0003.
          The MMRec toolbox's SLMRec on the same files has 0.0947 and 0.0383 (seed 999).

The published temperature of the main loss is 0.2 and the weight decay 1e-4. On validation (seed 0), recall@20 was 0.102
there, 0.113 at 0.3 and 1e-4, 0.115 at 0.3 and 1e-3, and 0.110 at 0.5 and 1e-3.
"""

from dataclasses import replace

from slmrec_jax import Config, with_protocol
from slmrec_jax.config import OptimizerConfig, SLMRecConfig


def get_config() -> Config:
    config = replace(
        Config(),
        task="fac",
        slmrec=SLMRecConfig(temperature=0.3, ssl_temperature=0.2, alpha=0.1),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=1e-3),
    )
    return with_protocol(config, "mmrec")
