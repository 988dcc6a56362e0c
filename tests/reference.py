"""The definitions that tests compare with: plain float64 NumPy, as slow as it is obvious."""

import math

import numpy as np

# --- ranking and metrics ---


def ranking(user_rows, item_rows, users, known, k, sigmoid=False):
    """The k best items of each user by (-score, id), without the (user, item) pairs in `known`; -1 fills up."""
    known = set(known)
    ranked = np.full((len(users), k), -1)
    for row, user in enumerate(users):
        scores = np.asarray(item_rows, np.float64) @ np.asarray(user_rows[user], np.float64)
        if sigmoid:  # of the score in float32, whose saturation makes ties
            scores = np.float32(1) / (np.float32(1) + np.exp(-scores.astype(np.float32)))
        candidates = [item for item in range(len(scores)) if (user, item) not in known]
        best = sorted(candidates, key=lambda item: (-scores[item], item))[:k]
        ranked[row, : len(best)] = best
    return ranked


def metrics_of_user(ranked, relevant, k, list_length):
    """All metrics at cut-off k of one user, whose ranking is read to `list_length` by `found_ndcg` alone."""
    relevance = [float(item in relevant) for item in ranked[:list_length]]
    top, n = relevance[:k], len(relevant)
    first_hits = [1 / position for position, hit in enumerate(top, 1) if hit][:1]
    dcg = _dcg(top)
    ideal = _dcg([1.0] * min(k, n))
    ideal_of_found = _dcg(sorted(relevance, reverse=True)[:k])
    return {
        "recall": sum(top) / n,
        "precision": sum(top) / k,
        "hit": float(any(top)),
        "ndcg": dcg / ideal,
        "found_ndcg": dcg / ideal_of_found if ideal_of_found else 0.0,
        "map": sum(sum(top[:p]) / p for p in range(1, len(top) + 1) if top[p - 1]) / min(k, n),
        "mrr": sum(first_hits),
    }


def _dcg(relevance):
    return sum(gain / math.log2(position + 1) for position, gain in enumerate(relevance, 1))


# --- item graphs ---


def nearest_items(values, present, k):
    """For each item its k nearest by cosine, as {id: cosine} by ascending id; an item itself first, then lower ids."""
    values = values.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    there = np.flatnonzero((present > 0) & (norms > 0))
    neighbours = [{} for _ in values]
    for item in there:
        cosines = {int(j): values[item] @ values[j] / norms[item] / norms[j] for j in there}
        best = sorted(cosines, key=lambda j: (j != item, -round(cosines[j], 9), j))[:k]
        neighbours[item] = {j: cosines[j] for j in sorted(best)}
    return neighbours


def item_graph(values, present, k, entries):
    """D^-1/2 A D^-1/2 of the nearest items, dense: entries are ones or cosines, D the row sums on both sides."""
    a = np.zeros((len(values), len(values)))
    for item, neighbours in enumerate(nearest_items(values, present, k)):
        for j, cosine in neighbours.items():
            a[item, j] = cosine if entries == "similarities" else 1.0
    sums = a.sum(1)
    scale = np.where(sums > 0, 1 / np.sqrt(np.where(sums > 0, sums, 1)), 0)
    return scale[:, None] * a * scale


# --- propagation ---


def adjacency(num_users, num_items, users, items):
    """P, dense: users stacked on items."""
    r = np.zeros((num_users, num_items))
    r[users, items] = 1.0
    with np.errstate(divide="ignore"):
        user_scale, item_scale = (np.where(d > 0, d**-0.5, 0.0) for d in (r.sum(1), r.sum(0)))
    r = user_scale[:, None] * r * item_scale
    return np.block([[np.zeros((num_users, num_users)), r], [r.T, np.zeros((num_items, num_items))]])


def read_out(p, x, num_layers):
    """M_L x."""
    total, layer = np.array(x, np.float64), np.array(x, np.float64)
    for _ in range(num_layers):
        layer = p @ layer
        total += layer
    return total / (num_layers + 1)


# --- losses ---


def cross_entropy(scores, allowed=None):
    """The mean over rows b of log Σ_c exp S_bc - S_bb, c over what is allowed for b and b itself."""
    values = []
    for b in range(len(scores)):
        columns = [c for c in range(len(scores)) if c == b or allowed is None or allowed[b][c]]
        values.append(math.log(sum(math.exp(scores[b][c]) for c in columns)) - scores[b][b])
    return sum(values) / len(values)


def unit(x):
    """Rows divided by their norm."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# --- analysis ---


def cosine_neighbours(table, item, candidates, k):
    """The k candidates of largest cosine to an item, itself left out, by (-cosine, id); cosines to 12 digits."""
    x = np.asarray(table, np.float64)

    def cosine(other):
        return round(float(x[item] @ x[other] / (np.linalg.norm(x[item]) * np.linalg.norm(x[other]))), 12)

    return sorted((other for other in candidates if other != item), key=lambda other: (-cosine(other), other))[:k]
