"""Intervals by identity, the null of shuffled labels, and verification from scores."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ranking import BINS, Protocol, Ranks, in_place
from scipy.special import ndtr, ndtri

REPLICATES, LEVEL = 10_000, 0.90
CHUNK = 500
FALSE_ACCEPT_RATES = (1e-2, 1e-3, 1e-4)
MIN_IDENTITIES, NEGATIVES_PER_FALSE_ACCEPT = 100, 100


def intervals(values: dict[str, np.ndarray], identity: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Mean over queries of each array, with BCa ends from one set of draws of identities (Efron 1987)."""
    names, group = np.unique(identity, return_inverse=True)
    per_query = np.stack([np.ones(len(identity)), *values.values()], axis=1)
    sums = np.stack([np.bincount(group, weights=column, minlength=len(names)) for column in per_query.T], axis=1)
    rng = np.random.default_rng(seed)
    replicates = []
    for start in range(0, REPLICATES, CHUNK):
        n = min(CHUNK, REPLICATES - start)
        drawn = rng.integers(0, len(names), (n, len(names)), dtype=np.uint32)
        drawn += np.arange(n, dtype=np.uint32)[:, None] * np.uint32(len(names))
        times = np.bincount(drawn.ravel(), minlength=n * len(names)).reshape(n, len(names))
        total = times.astype(np.float64) @ sums
        replicates.append(total[:, 1:] / total[:, :1])
    drawn = np.concatenate(replicates)
    total = sums.sum(axis=0)
    value = total[1:] / total[0]
    left_out = (total[1:] - sums[:, 1:]) / (total[0] - sums[:, :1])
    skew = left_out.mean(axis=0) - left_out
    with np.errstate(invalid="ignore"):
        acceleration = np.nan_to_num((skew**3).sum(axis=0) / (6 * (skew**2).sum(axis=0) ** 1.5))
    share = ((drawn < value).sum(axis=0) + 0.5 * (drawn == value).sum(axis=0)) / REPLICATES
    bias = ndtri(np.clip(share, 0.5 / REPLICATES, 1 - 0.5 / REPLICATES))
    out = {}
    for column, name in enumerate(values):
        z = bias[column] + ndtri(np.array([1 - LEVEL, 1 + LEVEL]) / 2)
        at = ndtr(bias[column] + z / (1 - acceleration[column] * z))
        lower, upper = np.quantile(drawn[:, column], at)
        out[name] = {"value": float(value[column]), "lower": float(lower), "upper": float(upper)}
    return out


def shuffled_labels(
    rows: np.ndarray,
    protocol: Protocol,
    identity: np.ndarray,
    permutations: int,
    most_scores: int,
    seed: int,
    threads: int,
) -> tuple[np.ndarray, int]:
    """mAP of old->old for each permutation of the gallery's labels, and on how many evenly spaced queries.

    A query's items are ranked once; a permutation only says which ranks are relevant. Its junk stays removed.
    """
    gallery = in_place(rows, protocol.gallery)
    size = len(gallery)
    chosen = np.arange(len(protocol.queries))[:: -(-len(protocol.queries) * size // most_scores)]
    n_donors = np.array([len(protocol.removed[query]) for query in chosen])
    donors = np.concatenate([protocol.removed[query] for query in chosen])
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(size).astype(np.int32)[donors] for _ in range(permutations)])
    first = np.concatenate([[0], np.cumsum(n_donors)])

    def precision(number: int) -> np.ndarray:
        query = chosen[number]
        scores = gallery @ rows[protocol.queries[query]]
        junk = np.union1d(np.setdiff1d(protocol.removed[query], protocol.relevant[query]), protocol.junk)
        scores[junk] = -np.inf
        rank = np.empty(size, dtype=np.int32)
        rank[np.argsort(-scores)] = np.arange(1, size + 1)
        found = np.sort(rank[drawn[:, first[number] : first[number + 1]]], axis=1).astype(np.float64)
        found[found > size - len(junk)] = np.inf
        n_found = np.isfinite(found).sum(axis=1)
        precisions = (np.arange(1, found.shape[1] + 1) / found).sum(axis=1)
        return np.divide(precisions, n_found, out=np.full(permutations, np.nan), where=n_found > 0)

    with ThreadPoolExecutor(threads) as pool:
        per_query = np.stack(list(pool.map(precision, range(len(chosen)))))
    return np.nanmean(per_query, axis=0), len(chosen)


def verification_by_histogram(found: Ranks) -> dict | None:
    """AUROC and TAR at FAR over all pairs, scores rounded to 1 / 32,768."""
    matches = found.relevant_scores[~np.isnan(found.relevant_scores)]
    positive = np.bincount(np.clip(((matches + 1) * (BINS // 2)).astype(int), 0, BINS - 1), minlength=BINS)
    negative = found.histogram
    below = np.cumsum(negative) - negative
    auroc = float((positive * (below + 0.5 * negative)).sum() / (positive.sum() * negative.sum()))
    accepted, kept = (np.cumsum(each[::-1])[::-1] for each in (negative, positive))
    points = []
    for far in supported_rates(negative.sum()):
        at = int(np.argmax(accepted <= far * negative.sum()))
        points.append({"far": far, "tar": float(kept[at] / positive.sum()), "threshold": at / (BINS // 2) - 1})
    return {"auroc": auroc, "operating_points": points, "pairs": int(positive.sum() + negative.sum())}


def verification_by_sklearn(found: Ranks, queries: np.ndarray, gallery: np.ndarray, protocol: Protocol) -> dict:
    """The same from every score."""
    from sklearn.metrics import roc_auc_score, roc_curve

    scores = queries @ gallery.T
    is_negative = np.ones(scores.shape, dtype=bool)
    is_negative[:, protocol.junk] = False
    for row, positions in zip(is_negative, protocol.removed, strict=True):
        row[positions] = False
    matches, others = found.relevant_scores[~np.isnan(found.relevant_scores)], scores[is_negative]
    label = np.repeat([True, False], [len(matches), len(others)])
    pooled = np.concatenate([matches, others])
    fpr, tpr, threshold = roc_curve(label, pooled, drop_intermediate=False)
    points = []
    for far in supported_rates(len(others)):
        at = int(np.searchsorted(fpr, far, side="right")) - 1
        points.append({"far": far, "tar": float(tpr[at]), "threshold": float(threshold[at])})
    return {"auroc": float(roc_auc_score(label, pooled)), "operating_points": points, "pairs": len(pooled)}


def supported_rates(negatives: int) -> list[float]:
    """False-accept rates with enough negatives."""
    return [far for far in FALSE_ACCEPT_RATES if negatives >= NEGATIVES_PER_FALSE_ACCEPT / far]
