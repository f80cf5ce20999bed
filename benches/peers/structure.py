"""The old gallery's identities: prototypes, credibility by leave-one-out, and sub-clusters."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

BLOCK = 256
TAU_RANGE, TAU_ITEMS = (0.005, 1.0), 2048
MIN_GROUP, MIN_PART, MOST_PARTS, STARTS = 8, 4, 8, 4
# On the data of clusters.py (dim 384, 16 items) nine in ten identities with two sub-clusters lie above, others below.
CLEAR_SILHOUETTE = 0.12
IDENTITIES_A_JOB, JOBS_WORTH_PROCESSES = 200, 5


class Prototypes:
    """Summed unit rows of each identity."""

    def __init__(self, rows: np.ndarray, identity: np.ndarray) -> None:
        self.rows = rows
        self.names, self.own, self.size = np.unique(identity, return_inverse=True, return_counts=True)
        members = (np.ones(len(rows), dtype=np.float32), (self.own, np.arange(len(rows))))
        self.sums = csr_array(members, shape=(len(self.names), len(rows))) @ rows
        self.directions = self.sums / np.linalg.norm(self.sums, axis=1, keepdims=True)

    def own_cosine(self) -> np.ndarray:
        """Cosine of each row to its identity's prototype without the row itself; NaN for an identity's only item."""
        out = np.empty(len(self.rows), dtype=np.float32)
        for start in range(0, len(self.rows), 1 << 14):
            block = slice(start, start + (1 << 14))
            rest = self.sums[self.own[block]] - self.rows[block]
            length = np.sqrt(np.einsum("id,id->i", rest, rest))
            out[block] = np.einsum("id,id->i", rest, self.rows[block]) / np.maximum(length, 1e-12)
        out[self.size[self.own] < 2] = np.nan
        return out

    def cosines(self, items: np.ndarray, own_cosine: np.ndarray) -> np.ndarray:
        """To every prototype, each item left out of its own."""
        out = self.rows[items] @ self.directions.T
        out[np.arange(len(items)), self.own[items]] = own_cosine[items]
        return out

    def credibility(self, own_cosine: np.ndarray, items: np.ndarray, threads: int) -> tuple[np.ndarray, float]:
        """Posterior of each item's own identity, and the temperature, which the items' likelihood fits."""
        sample = items[:: -(-len(items) // TAU_ITEMS)]
        cosines = self.cosines(sample, own_cosine)

        def loss(log_tau: float) -> float:
            return -log_posterior(cosines, own_cosine[sample], np.exp(log_tau)).mean()

        fitted = minimize_scalar(loss, bounds=np.log(TAU_RANGE), method="bounded", options={"xatol": 1e-4})
        tau = float(np.exp(fitted.x))

        def posterior(start: int) -> np.ndarray:
            block = items[start : start + BLOCK]
            return np.exp(log_posterior(self.cosines(block, own_cosine), own_cosine[block], tau))

        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(posterior, range(0, len(items), BLOCK)))), tau


def log_posterior(cosines: np.ndarray, own_cosine: np.ndarray, tau: float) -> np.ndarray:
    """Of the own identity under a softmax of the cosines."""
    highest = cosines.max(axis=1)
    total = np.exp((cosines - highest[:, None]) / np.float32(tau)).sum(axis=1)
    return (own_cosine - highest) / tau - np.log(total)


def subclusters(rows: np.ndarray, identity: np.ndarray, threads: int) -> dict[int, int]:
    """Sub-clusters of each identity that has more than one."""
    order = np.argsort(identity, kind="stable")
    names, first, size = np.unique(identity[order], return_index=True, return_counts=True)
    large = np.flatnonzero(size >= MIN_GROUP)
    if not len(large):
        return {}
    groups = [order[first[group] : first[group] + size[group]] for group in large]
    jobs = [slice(start, start + IDENTITIES_A_JOB) for start in range(0, len(groups), IDENTITIES_A_JOB)]
    parts = ([rows[group] for group in groups[job]] for job in jobs)
    if threads > 1 and len(jobs) >= JOBS_WORTH_PROCESSES:
        from joblib import Parallel, delayed

        found = Parallel(n_jobs=threads)(delayed(numbers)(part) for part in parts)
    else:
        found = [numbers(part) for part in parts]
    return {int(names[group]): int(k) for group, k in zip(large, np.concatenate(found), strict=True) if k > 1}


def numbers(groups: list[np.ndarray]) -> list[int]:
    """Sub-clusters of each group: one more as long as k-means' mean silhouette is clear and grows."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    found = []
    with threadpool_limits(1):  # OpenMP was loaded just now
        for rows in groups:
            best, k = CLEAR_SILHOUETTE, 1
            while k < min(MOST_PARTS, len(rows) // MIN_PART):
                label = KMeans(k + 1, n_init=STARTS, random_state=0).fit_predict(rows)
                silhouette = silhouette_score(rows, label)
                if silhouette <= best or np.bincount(label).min() < MIN_PART:
                    break
                best, k = silhouette, k + 1
            found.append(k)
    return found
