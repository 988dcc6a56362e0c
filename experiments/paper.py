"""The SLMRec paper (Tao et al., IEEE TMM 2022): its settings, its systems, and the figures of its tables.

The figures are those of Tables II and III, recall, NDCG and precision at 10 on the test split, with the paper's six
decimals; MF-BPR's precision on Movielens looks like a misprint. The paper's curves come without figures, except FAC
without the main loss, whose recall@10 is in the text.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from slmrec_jax import Config, with_preset, with_protocol
from slmrec_jax.config import with_settings, with_system

Switches = Literal["reference", "paper"]
"""The presets of SLMRec: as its published code computes it, or as the paper says."""

PaperData = Literal["tiktok", "kwai", "movielens"]

METRICS = ("recall@10", "ndcg@10", "precision@10")

GRID = (1e-4, 1e-3, 1e-2, 1e-1)
"""The learning rates and the weight decays that the paper searches for every system."""

BASELINES: Mapping[str, str] = {
    "MF-BPR": "mf:concat",
    "LightGCN": "lightgcn:fused",
    "VBPR": "vbpr",
    "MMGCN": "mmgcn",
}
"""The paper's baselines read ids and content; MF and LightGCN need a preset for that."""

PaperTask = Literal["fm", "fd", "fd+fm", "fac"]

NAMES: Mapping[PaperTask, str] = {"fm": "SLMRec-FM", "fd": "SLMRec-FD", "fd+fm": "SLMRec-FM+FD", "fac": "SLMRec-FAC"}
"""The paper's names for SLMRec with a task."""

TASKS: Mapping[str, str] = {name: f"slmrec:{task}" for task, name in NAMES.items()}

FIGURES: Mapping[PaperData, Mapping[str, tuple[float, float, float]]] = {
    "tiktok": {
        "MF-BPR": (0.073985, 0.042571, 0.011892),
        "LightGCN": (0.074568, 0.043207, 0.012201),
        "VBPR": (0.022105, 0.012653, 0.002787),
        "MMGCN": (0.026078, 0.018451, 0.004514),
        "SLMRec-FM": (0.131209, 0.076837, 0.022413),
        "SLMRec-FD": (0.130143, 0.076662, 0.022187),
        "SLMRec-FM+FD": (0.130804, 0.076732, 0.022268),
        "SLMRec-FAC": (0.132955, 0.078081, 0.022694),
    },
    "kwai": {
        "MF-BPR": (0.039913, 0.034357, 0.010428),
        "LightGCN": (0.046371, 0.039368, 0.013309),
        "VBPR": (0.019401, 0.016082, 0.004265),
        "MMGCN": (0.024481, 0.010931, 0.006191),
        "SLMRec-FM": (0.057006, 0.045002, 0.018802),
        "SLMRec-FD": (0.057060, 0.045517, 0.019101),
        "SLMRec-FM+FD": (0.057236, 0.044929, 0.019101),
        "SLMRec-FAC": (0.057304, 0.045535, 0.019301),
    },
    "movielens": {
        "MF-BPR": (0.130689, 0.086055, 0.010571),
        "LightGCN": (0.135659, 0.088493, 0.033536),
        "VBPR": (0.156711, 0.102065, 0.037528),
        "MMGCN": (0.135288, 0.087006, 0.031240),
        "SLMRec-FM": (0.269497, 0.185904, 0.064937),
        "SLMRec-FD": (0.268943, 0.185865, 0.064975),
        "SLMRec-FM+FD": (0.268208, 0.185251, 0.064169),
        "SLMRec-FAC": (0.270616, 0.186821, 0.065286),
    },
}
"""Test metrics by data set and system, in the order of `METRICS`."""

FAC_ALONE: Mapping[PaperData, float] = {"tiktok": 0.0608, "kwai": 0.032716}
"""Recall@10 of FAC without the main loss."""

BEST_NOTE = "The paper gives curves; the figures beside ours are its best, from Table III."


def best_figures(data: PaperData | None, tasks: Sequence[PaperTask]) -> dict[PaperTask, tuple[float, float, float]]:
    """Return Table III's figures by task, in the order of `METRICS`; none where the data are not the paper's."""
    return {task: FIGURES[data][NAMES[task]] for task in tasks} if data else {}


def settings(preset: Switches) -> Config:
    """Return what all systems share: the paper's sizes and temperatures, selection by recall@10 on validation.

    The weight decay is every system's L2 term, so the baselines' own are off.
    """
    config = with_preset(with_protocol(Config(batch_size=2048, dim=64, num_layers=3, ks=(10, 20)), "strict"), preset)
    of_slmrec = {"slmrec.temperature": 0.2, "slmrec.ssl_temperature": 0.2, "slmrec.alpha": 0.1}
    of_baselines = {f"{model}.l2": 0.0 for model in ("mf", "lightgcn", "vbpr", "mmgcn")}
    return with_settings(config, {"eval.metric": METRICS[0], **of_slmrec, **of_baselines})


def systems(config: Config, names: Sequence[str]) -> dict[str, Config]:
    """Return the configs of the paper's systems, by the paper's names."""
    known = {**BASELINES, **TASKS}
    return {name: with_system(config, known[name]) for name in names}
