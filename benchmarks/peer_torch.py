"""A plain PyTorch peer of SLMRec, written from the paper's equations the way its published code computes them.

Each modality goes through the whole graph, users stacked on items, by `torch.sparse.mm` on a coalesced COO matrix;
features of all items are projected in each step; all rows are fused; losses read the batch's rows; Adam with coupled
weight decay updates every table. Nothing is precomputed but the normalised features and the matrix.
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

from slmrec_jax.data.dataset import Dataset

ID = "id"


def adjacency(dataset: Dataset) -> Tensor:
    """D^-1/2 A D^-1/2 on users stacked on items, in COO form."""
    users, items = (ids.astype(np.int64) for ids in dataset.train)
    size = dataset.num_users + dataset.num_items
    rows, columns = np.r_[users, items + dataset.num_users], np.r_[items + dataset.num_users, users]
    scale = 1 / np.sqrt(np.maximum(np.bincount(rows, minlength=size), 1))
    values = torch.tensor(scale[rows] * scale[columns], dtype=torch.float32)
    return torch.sparse_coo_tensor(np.stack([rows, columns]), values, (size, size)).coalesce()


class SLMRec(nn.Module):
    """Encoder, main loss and the self-supervised task of the published code's defaults."""

    def __init__(
        self, dataset: Dataset, task: str, dim: int = 64, num_layers: int = 3, dropout: float = 0.3,
        temperature: float = 0.2, ssl_temperature: float = 0.2, alpha: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_users, self.num_items, self.num_layers = dataset.num_users, dataset.num_items, num_layers
        self.task, self.dropout, self.alpha = task, dropout, alpha
        self.temperature, self.ssl_temperature = temperature, ssl_temperature
        self.matrix = adjacency(dataset)
        self.features = {
            name: functional.normalize(torch.tensor(feature.values)) for name, feature in dataset.features.items()
        }
        self.names = (ID, *self.features)
        self.user = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.num_users, dim)))
        self.item = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.num_items, dim)))
        self.projection = nn.ModuleDict({n: nn.Linear(x.shape[1], dim) for n, x in self.features.items()})
        self.fusion = nn.ModuleDict({side: nn.Linear(dim * len(self.names), dim) for side in ("user", "item")})
        widths = [dim, *(dim if level < 2 else dim // 2 for level in range(len(self.features)))]
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleList([nn.Linear(widths[level], widths[level + 1]), nn.Linear(dim, widths[level + 1])])
                for level, name in enumerate(self.features)
            }
        )

    def layer0(self) -> dict[str, Tensor]:
        """The items' rows by modality, before propagation."""
        return {ID: self.item} | {name: self.projection[name](x) for name, x in self.features.items()}

    def propagate(self, items: Tensor, read_out: Tensor | None = None, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Users and items after the mean over layers; layer 0's items may be read out other than propagated."""
        x = torch.cat([self.user, items])
        layers = [x if read_out is None else torch.cat([self.user, read_out])]
        for _ in range(self.num_layers):
            x = functional.dropout(torch.sparse.mm(self.matrix, x), dropout)
            layers.append(x)
        users, items = torch.stack(layers, dim=1).mean(dim=1).split([self.num_users, self.num_items])
        return users, items

    def fuse(self, by_modality: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """All users and all items after the affine map of the concatenation."""
        users, items = (torch.cat(side, dim=1) for side in zip(*by_modality.values(), strict=True))
        return self.fusion["user"](users), self.fusion["item"](items)

    def views(self, layer0: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Two augmented views, fused: feature dropout in the layers, feature masking of one modality each, or both."""
        dropout = self.dropout if "fd" in self.task else 0.0
        masked = [len(self.names), len(self.names)]
        if "fm" in self.task:
            masked = torch.randperm(len(self.names))[:2].tolist()
        views = []
        for own, other in (masked, masked[::-1]):
            rows = {}
            for place, (name, x) in enumerate(layer0.items()):
                propagated = torch.zeros_like(x) if place == other else x
                rows[name] = self.propagate(propagated, torch.zeros_like(x) if place == own else x, dropout)
            views.append(self.fuse(rows))
        return views

    def loss(self, users: Tensor, items: Tensor) -> Tensor:
        """The objective on a batch of interactions."""
        layer0 = self.layer0()
        rows = {name: self.propagate(x) for name, x in layer0.items()}
        all_users, all_items = self.fuse(rows)
        total = self._contrast(all_users[users], all_items[items], self.temperature)
        if self.task == "fac":
            chained, ssl = rows[ID][1][items], 0.0
            for name, (of_id, of_modality) in self.heads.items():
                chained = of_id(chained)
                scores = chained @ of_modality(rows[name][1][items]).T / self.ssl_temperature
                ssl = ssl + functional.cross_entropy(scores, torch.arange(len(items)))
            total = total + self.alpha * ssl
        elif self.task != "none":
            first, second = self.views(layer0)
            ssl = self._contrast(first[0][users], second[0][users], self.ssl_temperature)
            ssl = ssl + self._contrast(first[1][items], second[1][items], self.ssl_temperature)
            total = total + self.alpha * ssl
        return total

    def _contrast(self, x: Tensor, y: Tensor, temperature: float) -> Tensor:
        scores = functional.normalize(x) @ functional.normalize(y).T / temperature
        return functional.cross_entropy(scores, torch.arange(len(x)))


class Trainer:
    """Adam with coupled weight decay on random batches; a call is a step."""

    def __init__(self, dataset: Dataset, task: str, batch_size: int = 2048, lr: float = 1e-3) -> None:
        self.model = SLMRec(dataset, task)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr, weight_decay=1e-4)
        self.users, self.items = (torch.tensor(ids.astype(np.int64)) for ids in dataset.train)
        self.batch_size = batch_size

    def __call__(self) -> None:
        rows = torch.randint(len(self.users), (self.batch_size,))
        self.step(rows)

    def step(self, rows: Tensor) -> None:
        """One update on some of the training interactions."""
        self.optimizer.zero_grad()
        self.model.loss(self.users[rows], self.items[rows]).backward()
        self.optimizer.step()


def rank(users: np.ndarray, items: np.ndarray, known: scipy.sparse.csr_array, k: int, chunk: int = 2048) -> np.ndarray:
    """The k best items of each user by matmul and topk, known ones at -inf, a chunk of users at a time."""
    users, items = torch.tensor(users), torch.tensor(items)
    found = []
    for start in range(0, len(users), chunk):
        scores = users[start : start + chunk] @ items.T
        rows, columns = known[start : start + chunk].nonzero()
        scores[torch.tensor(rows), torch.tensor(columns)] = -torch.inf
        found.append(torch.topk(scores, k).indices)
    return torch.cat(found).numpy()
