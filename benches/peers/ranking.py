"""Exact ranks of every relevant item by counting, in one blocked pass over the gallery."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from probe import JUNK, Probe

QUERY_BLOCK, GALLERY_BLOCK = 512, 8192
STEPS = 20
TOP = 100
BINS = 1 << 16
REMOVED = np.float32(-2)
# Scores this near are equal but for BLAS's rounding, and a tie counts against the query.
ROUNDING = np.float32(2e-7)
PAIRINGS = ("old->old", "new->old", "new->new")


@dataclass
class Protocol:
    """Who is searched by whom. Queries without a relevant item are left out.

    `relevant` holds gallery positions, shape (queries, most), padded with -1; `removed` what is no negative, a row of
    positions each: the relevant, the query itself, and items of its identity and camera.
    """

    gallery: np.ndarray
    queries: np.ndarray
    relevant: np.ndarray
    n_relevant: np.ndarray
    removed: list[np.ndarray]
    junk: np.ndarray
    by_identity: np.ndarray
    excluded: int

    @classmethod
    def of(cls, probe: Probe) -> "Protocol":
        gallery, asked = np.flatnonzero(probe.is_gallery), np.flatnonzero(probe.is_query & (probe.identity != JUNK))
        identity = probe.identity[gallery]
        by_identity = np.argsort(identity, kind="stable")
        first, last = (
            np.searchsorted(identity, probe.identity[asked], side, by_identity) for side in ("left", "right")
        )
        queries, relevant, removed = [], [], []
        for query, start, stop in zip(asked, first, last, strict=True):
            same = by_identity[start:stop]
            junk = gallery[same] == query
            if probe.camera[query] >= 0:
                junk |= probe.camera[gallery[same]] == probe.camera[query]
            if not junk.all():
                queries.append(query)
                removed.append(same)
                relevant.append(same[~junk])
        n_relevant = np.array([len(positions) for positions in relevant])
        padded = np.full((len(queries), n_relevant.max()), -1)
        for row, positions in zip(padded, relevant, strict=True):
            row[: len(positions)] = positions
        return cls(
            gallery=gallery,
            queries=np.array(queries),
            relevant=padded,
            n_relevant=n_relevant,
            removed=removed,
            junk=np.flatnonzero(identity == JUNK),
            by_identity=by_identity,
            excluded=len(asked) - len(queries),
        )


@dataclass
class Ranks:
    """What the pass leaves of one pairing."""

    relevant_scores: np.ndarray
    """(queries, most), padded with NaN."""
    best_scores: np.ndarray
    """Scores of the best negatives, best first; with `best`, their gallery positions."""
    best: np.ndarray
    histogram: np.ndarray
    """Negatives of all queries by score, BINS from -1 to 1."""
    curve: np.ndarray
    """Ranks of the relevant items, ascending, (steps, queries, most), padded with infinity: one step, or for new->old
    one a share of the gallery that is re-embedded (the last is new->new)."""


@njit(nogil=True, cache=True)
def tally(scores, first, thresholds, step, counts, best_scores, best, histogram):
    """Counts a block's negatives by the highest ascending threshold of their query that they reach; keeps the best."""
    last = best.shape[1] - 1
    for q in range(scores.shape[0]):
        lowest = thresholds[q, 0]
        for g in range(scores.shape[1]):
            score = scores[q, g]
            if score < -1.5:
                continue
            histogram[min(max(int((score + 1) * (BINS // 2)), 0), BINS - 1)] += 1
            if score >= lowest:
                reached = np.searchsorted(thresholds[q], score, "right") - 1
                counts[q, reached, step[first + g]] += 1
            if score > best_scores[q, last]:
                at = last
                while at > 0 and best_scores[q, at - 1] < score:
                    best_scores[q, at], best[q, at] = best_scores[q, at - 1], best[q, at - 1]
                    at -= 1
                best_scores[q, at], best[q, at] = score, first + g


def scores_of_relevant(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Their scores, infinite where padded."""
    out = np.empty(relevant.shape, dtype=np.float32)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        out[block] = np.einsum("qd,qrd->qr", queries[block], gallery[relevant[block]])
    out[relevant < 0] = np.inf
    return out


def rank(old: np.ndarray, new: np.ndarray, protocol: Protocol, order: np.ndarray, threads: int) -> dict[str, Ranks]:
    """One pass for the three pairings and for the refresh, which re-embeds the gallery in this order.

    At a step the negatives at or above a threshold are old ones that are not yet re-embedded and new ones that are, so
    counts by (threshold, step) under both galleries answer for every step.
    """
    galleries = [in_place(rows, protocol.gallery) for rows in (old, new)]
    asked = [rows[protocol.queries] for rows in (old, new)]
    sides = {"old->old": (0, 0), "new->old": (1, 0), "new->new": (1, 1)}
    own = {name: scores_of_relevant(asked[q], galleries[g], protocol.relevant) for name, (q, g) in sides.items()}
    counted = {name: scores - ROUNDING for name, scores in own.items()}
    both = np.concatenate([counted["new->old"], counted["new->new"]], axis=1)
    rising = {"old->old": np.sort(counted["old->old"], axis=1)}
    rising["new->old"] = rising["new->new"] = np.sort(both, axis=1)
    n, size = len(protocol.queries), len(protocol.gallery)
    step = np.empty(size, dtype=np.int64)
    step[order] = np.searchsorted(items_at(np.arange(STEPS + 1), size), np.arange(size), side="right")
    at_once = np.zeros(size, dtype=np.int64)
    steps = {name: at_once if name == "old->old" else step for name in PAIRINGS}
    counts = {
        name: np.zeros((*rising[name].shape, 1 if name == "old->old" else STEPS + 1), dtype=np.int32)
        for name in PAIRINGS
    }
    best_scores = {name: np.full((n, TOP), REMOVED, dtype=np.float32) for name in PAIRINGS}
    best = {name: np.full((n, TOP), -1, dtype=np.int32) for name in PAIRINGS}

    def block_of(start: int) -> dict[str, np.ndarray]:
        rows = slice(start, min(start + block, n))
        row = np.repeat(np.arange(rows.stop - start), [len(protocol.removed[q]) for q in range(start, rows.stop)])
        column = np.concatenate(protocol.removed[rows])
        by_column = np.argsort(column, kind="stable")
        row, column = row[by_column], column[by_column]
        histograms = {name: np.zeros(BINS, dtype=np.int64) for name in PAIRINGS}
        scores = np.empty((rows.stop - start, GALLERY_BLOCK), dtype=np.float32)
        for first in range(0, size, GALLERY_BLOCK):
            last = min(first + GALLERY_BLOCK, size)
            inside = slice(*np.searchsorted(column, (first, last)))
            junk = protocol.junk[slice(*np.searchsorted(protocol.junk, (first, last)))] - first
            for name, (q, g) in sides.items():
                part = scores[:, : last - first]
                np.matmul(asked[q][rows], galleries[g][first:last].T, out=part)
                part[row[inside], column[inside] - first] = REMOVED
                part[:, junk] = REMOVED
                tally(
                    part, first, rising[name][rows], steps[name], counts[name][rows], best_scores[name][rows],
                    best[name][rows], histograms[name],
                )  # fmt: skip
        return histograms

    block = min(QUERY_BLOCK, -(-n // threads))
    with ThreadPoolExecutor(threads) as pool:
        histograms = list(pool.map(block_of, range(0, n, block)))
    above = {name: np.cumsum(at_or_above(counts[name]), axis=2) for name in PAIRINGS}
    curves = {"old->old": ranks(counted["old->old"], rising["old->old"], above["old->old"][:, :, 0])[None]}
    step_of_relevant = step[protocol.relevant]
    refreshed = []
    for now in range(STEPS + 1):
        mixed = np.where(step_of_relevant <= now, counted["new->new"], counted["new->old"])
        left = above["new->old"][:, :, -1] - above["new->old"][:, :, now] + above["new->new"][:, :, now]
        refreshed.append(ranks(mixed, rising["new->old"], left))
    curves["new->old"], curves["new->new"] = np.stack(refreshed), refreshed[-1][None]
    return {
        name: Ranks(
            relevant_scores=np.where(protocol.relevant < 0, np.nan, own[name]),
            best_scores=best_scores[name],
            best=best[name],
            histogram=sum(each[name] for each in histograms),
            curve=curves[name],
        )
        for name in PAIRINGS
    }


def in_place(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """These rows, without a copy where they follow each other."""
    if items[-1] - items[0] + 1 == len(items):
        return rows[items[0] : items[-1] + 1]
    return rows[items]


def items_at(step: np.ndarray, size: int) -> np.ndarray:
    """Items re-embedded at a step, rounded half up."""
    return (step * size + STEPS // 2) // STEPS


def at_or_above(counts: np.ndarray) -> np.ndarray:
    """Negatives at or above each ascending threshold."""
    return np.flip(np.cumsum(np.flip(counts, axis=1), axis=1), axis=1)


def ranks(own: np.ndarray, rising: np.ndarray, above: np.ndarray) -> np.ndarray:
    """1 + the negatives at or above it + the relevant before it, ascending; infinite where padded."""
    best_first = -np.sort(-np.where(np.isinf(own), -np.inf, own), axis=1)
    at = np.stack([np.searchsorted(row, values) for row, values in zip(rising, best_first, strict=True)])
    found = 1 + np.arange(own.shape[1]) + np.take_along_axis(above, np.minimum(at, above.shape[1] - 1), axis=1)
    return np.where(np.isinf(best_first), np.inf, found)


def measures(ranks: np.ndarray, n_relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure of every query."""
    number = np.arange(1, ranks.shape[1] + 1)
    first, last = ranks[:, 0], np.take_along_axis(ranks, n_relevant[:, None] - 1, axis=1)[:, 0]
    gain = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).sum(axis=1)
    ideal = np.cumsum(np.where(number <= 10, 1 / np.log2(number + 1), 0))[n_relevant - 1]
    out = {"mAP": (number / ranks).sum(axis=1) / n_relevant}
    out |= {f"CMC@{k}": (first <= k).astype(float) for k in (1, 5, 10)}
    out |= {f"recall@{k}": (ranks <= k).sum(axis=1) / n_relevant for k in (1, 5, 10)}
    r_precision = (ranks <= n_relevant[:, None]).sum(axis=1) / n_relevant
    return out | {"MRR": 1 / first, "R-precision": r_precision, "mINP": n_relevant / last, "nDCG@10": gain / ideal}


def top_lists(found: Ranks, protocol: Protocol, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and gallery positions of each query's best items, relevant or not, best first; ties by position."""
    own = np.where(np.isnan(found.relevant_scores), REMOVED, found.relevant_scores)
    scores = np.concatenate([found.best_scores, own], axis=1)
    items = np.concatenate([found.best, protocol.relevant], axis=1)
    order = np.lexsort((items, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(items, order, axis=1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of items that two lists of each query have in common."""
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum(axis=1).mean() / a.shape[1])
