"""Seeded embeddings of identities, as two models of one frame would give them.

Identities come in groups of 50 that resemble each other. With c, d, u, e, a, b normal, their variances falling over
the dimensions as 1/(1 + i/16)^2 and summing to 1, so that a weight is the squared length of its part and unrelated
scores spread as in some 50 dimensions, however many there are:

    centre(y)    = sqrt(GROUP) c(group of y) + sqrt(OWN) d(y)
    truth(i)     = centre(y) +- sqrt(SUBCLUSTER) u(y) + sqrt(ITEM) e(i)
    old(i)       = truth(i) + sqrt(OLD) a(i),  new(i) = truth(i) + sqrt(NEW) b(i),  both L2-normalised, float32

Every fifth identity has two sub-clusters (even members +, odd members -), the others none. The new model's noise is
smaller: it is better, and its queries find more in the old gallery. Rows are drawn in blocks of their own streams: with
as many members an identity, a prefix of a larger set is the smaller set.
"""

from collections.abc import Iterator

import numpy as np

GROUP_SIZE, SPLIT_EVERY = 50, 5
GROUP, OWN, SUBCLUSTER, ITEM, OLD, NEW = 0.20, 0.42, 0.12, 0.30, 0.20, 0.13
BLOCK = 2048
CENTRES, GROUPS, OFFSETS, QUERIES, GALLERY = range(5)


def _normal(seed: int, stream: int, block: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws of one block of one stream, of expected squared length 1."""
    variance = (1 + np.arange(shape[-1]) / 16) ** -2.0
    scale = np.sqrt(variance / variance.sum()).astype(np.float32)
    return np.random.default_rng([seed, stream, block]).standard_normal(shape, dtype=np.float32) * scale


class Clusters:
    """The identities; `rows` draws their items."""

    def __init__(self, identities: int, dim: int, seed: int) -> None:
        self.dim, self.seed = dim, seed
        groups = -(-identities // GROUP_SIZE)
        self.centres = np.empty((identities, dim), dtype=np.float32)
        group_centres = _normal(seed, GROUPS, 0, (groups, dim))
        for block, start in enumerate(range(0, identities, BLOCK)):
            stop = min(start + BLOCK, identities)
            part = _normal(seed, CENTRES, block, (BLOCK, dim))[: stop - start] * np.float32(np.sqrt(OWN))
            part += np.float32(np.sqrt(GROUP)) * group_centres[np.arange(start, stop) // GROUP_SIZE]
            self.centres[start:stop] = part
        self.offsets = np.sqrt(SUBCLUSTER) * _normal(seed, OFFSETS, 0, (-(-identities // SPLIT_EVERY), dim))

    def rows(
        self, identity: np.ndarray, member: np.ndarray, stream: int
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Blocks of (rows, old, new) of items with these identities and numbers within their identity."""
        for block, start in enumerate(range(0, len(identity), BLOCK)):
            rows = slice(start, min(start + BLOCK, len(identity)))
            n = rows.stop - rows.start
            draws = _normal(self.seed, stream, block, (3, BLOCK, self.dim))[:, :n]
            truth = self.centres[identity[rows]] + np.float32(np.sqrt(ITEM)) * draws[0]
            split = np.flatnonzero(identity[rows] % SPLIT_EVERY == 0)
            sign = np.where(member[rows][split] % 2 == 0, 1, -1).astype(np.float32)
            truth[split] += sign[:, None] * self.offsets[identity[rows][split] // SPLIT_EVERY]
            old = truth + np.float32(np.sqrt(OLD)) * draws[1]
            new = truth + np.float32(np.sqrt(NEW)) * draws[2]
            for rows_of in (old, new):
                rows_of /= np.linalg.norm(rows_of, axis=1, keepdims=True)
            yield rows, old, new


def old_rows(clusters: Clusters, identity: np.ndarray, member: np.ndarray, stream: int) -> np.ndarray:
    """All old embeddings of these items in memory."""
    out = np.empty((len(identity), clusters.dim), dtype=np.float32)
    for rows, old, _ in clusters.rows(identity, member, stream):
        out[rows] = old
    return out
