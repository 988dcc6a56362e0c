"""A plain PyTorch peer of SLMRec, written from the paper's equations the way its published code computes them.

Each modality is propagated over the whole graph, users stacked on items, with `torch.sparse.mm` on a coalesced COO
matrix. Features of all items are projected in each step, all rows are fused, losses read the batch's rows, and Adam
with coupled weight decay updates every table. Only the normalised features and the matrix are precomputed. As a
stronger peer than the published code, the matrix can be in compressed rows (CSR).

The peer runs on CUDA if PyTorch has it, otherwise on the CPU. It does not load JAX, whose memory would count as its
own.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:  # importing the package loads JAX
    from slmrec_jax.data.dataset import Dataset

ID = "id"
Layout: TypeAlias = Literal["coo", "csr"]
"""How the matrix is stored. On CUDA, cuSPARSE multiplies both."""


def device() -> torch.device:
    """Return the device of the peer."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait until the device has finished, since calls return earlier."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def adjacency(dataset: "Dataset", layout: Layout = "coo") -> Tensor:
    """Return D^-1/2 A D^-1/2 on users stacked on items."""
    users, items = (ids.astype(np.int64) for ids in dataset.train)
    size = dataset.num_users + dataset.num_items
    rows, columns = np.r_[users, items + dataset.num_users], np.r_[items + dataset.num_users, users]
    scale = 1 / np.sqrt(np.maximum(np.bincount(rows, minlength=size), 1))
    values = torch.tensor(scale[rows] * scale[columns], dtype=torch.float32)
    matrix = torch.sparse_coo_tensor(np.stack([rows, columns]), values, (size, size)).coalesce()
    return matrix if layout == "coo" else matrix.to_sparse_csr()


class SymmetricProduct(torch.autograd.Function):
    """The product with a matrix that is its own transpose: its derivative is the same product."""

    @staticmethod
    def forward(context: Any, matrix: Tensor, x: Tensor) -> Tensor:
        context.matrix = matrix
        return matrix @ x

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, context.matrix @ gradients[0]


class SLMRec(nn.Module):
    """The encoder, main loss and self-supervised task with the published code's defaults."""

    def __init__(
        self, dataset: "Dataset", task: str, dim: int = 64, num_layers: int = 3, dropout: float = 0.3,
        temperature: float = 0.2, ssl_temperature: float = 0.2, alpha: float = 0.1, layout: Layout = "coo",
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_users, self.num_items, self.num_layers = dataset.num_users, dataset.num_items, num_layers
        self.task, self.dropout, self.alpha = task, dropout, alpha
        self.temperature, self.ssl_temperature = temperature, ssl_temperature
        self.matrix = adjacency(dataset, layout).to(device())
        # PyTorch's own derivative of a product of compressed rows would transpose the matrix in each step.
        self.multiply = torch.sparse.mm if layout == "coo" else SymmetricProduct.apply
        self.features = {
            name: functional.normalize(torch.tensor(feature.values)).to(device())
            for name, feature in dataset.features.items()
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
        """Return the items' rows by modality, before propagation."""
        return {ID: self.item} | {name: self.projection[name](x) for name, x in self.features.items()}

    def propagate(self, items: Tensor, read_out: Tensor | None = None, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return users and items after the mean over layers; `read_out` replaces the items of layer 0 in that mean."""
        x = torch.cat([self.user, items])
        layers = [x if read_out is None else torch.cat([self.user, read_out])]
        for _ in range(self.num_layers):
            x = functional.dropout(self.multiply(self.matrix, x), dropout)
            layers.append(x)
        users, items = torch.stack(layers, dim=1).mean(dim=1).split([self.num_users, self.num_items])
        return users, items

    def fuse(self, by_modality: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return all users and items after the affine map of the concatenation."""
        users, items = (torch.cat(side, dim=1) for side in zip(*by_modality.values(), strict=True))
        return self.fusion["user"](users), self.fusion["item"](items)

    def views(self, layer0: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return two fused views: feature dropout in the layers, feature masking of one modality each, or both."""
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
        """Return the objective of a batch of interactions."""
        layer0 = self.layer0()
        rows = {name: self.propagate(x) for name, x in layer0.items()}
        all_users, all_items = self.fuse(rows)
        total = self._contrast(all_users[users], all_items[items], self.temperature)
        if self.task == "fac":
            chained, ssl = rows[ID][1][items], 0.0
            for name, (of_id, of_modality) in self.heads.items():
                chained = of_id(chained)
                scores = chained @ of_modality(rows[name][1][items]).T / self.ssl_temperature
                ssl = ssl + functional.cross_entropy(scores, torch.arange(len(items), device=scores.device))
            total = total + self.alpha * ssl
        elif self.task != "none":
            first, second = self.views(layer0)
            ssl = self._contrast(first[0][users], second[0][users], self.ssl_temperature)
            ssl = ssl + self._contrast(first[1][items], second[1][items], self.ssl_temperature)
            total = total + self.alpha * ssl
        return total

    def _contrast(self, x: Tensor, y: Tensor, temperature: float) -> Tensor:
        scores = functional.normalize(x) @ functional.normalize(y).T / temperature
        return functional.cross_entropy(scores, torch.arange(len(x), device=scores.device))


class Trainer:
    """Adam with coupled weight decay; a call takes a step on a random batch."""

    def __init__(
        self, dataset: "Dataset", task: str, batch_size: int = 2048, lr: float = 1e-3, layout: Layout = "coo"
    ) -> None:
        self.model = SLMRec(dataset, task, layout=layout).to(device())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr, weight_decay=1e-4)
        self.users, self.items = (torch.tensor(ids.astype(np.int64), device=device()) for ids in dataset.train)
        self.batch_size = batch_size

    def __call__(self) -> None:
        self.step(torch.randint(len(self.users), (self.batch_size,), device=device()))

    def step(self, rows: Tensor) -> None:
        """Take a step on some of the training interactions, and wait for it."""
        self.optimizer.zero_grad()
        self.model.loss(self.users[rows], self.items[rows]).backward()
        self.optimizer.step()
        synchronize()


def known_pairs(known: scipy.sparse.csr_array, block: int) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs that `rank` excludes: for each block of users, row in the block and item of each known pair."""
    blocks = (known[start : start + block].nonzero() for start in range(0, known.shape[0], block))
    return [tuple(torch.tensor(ids, device=device()) for ids in pairs) for pairs in blocks]


def rank(users: Tensor, items: Tensor, known: list[tuple[Tensor, Tensor]], k: int, block: int) -> np.ndarray:
    """Return the k best items of each user by matmul and topk, known ones at -inf, a block of users at a time."""
    found = []
    for number, pairs in enumerate(known):
        scores = users[number * block : (number + 1) * block] @ items.T
        scores[pairs] = -torch.inf
        found.append(torch.topk(scores, k).indices)
    return torch.cat(found).cpu().numpy()
