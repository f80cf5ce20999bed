"""Exact inner-product top-k by faiss (IndexFlatIP) and by numpy (blocked product and argpartition).

    target/peers-venv/bin/python benches/peers/search.py --queries 2000 --gallery 200000 --dim 384 --k 100 --threads 1

Prints one JSON line a method. Only the search is timed: making the data and building the index are not. Each method
runs in a process of its own, so that its peak memory is its own. Data: clusters.py (old model, 16 items an identity),
or the float32 rows of --queries-npy and --gallery-npy, used as they are.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import clusters
import faiss
import numpy as np
import psutil
from threadpoolctl import threadpool_info, threadpool_limits

METHODS = ("faiss", "numpy")
PER_IDENTITY = 16
QUERY_BLOCK, GALLERY_BLOCK = 512, 16384


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--gallery", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--queries-npy", help="float32 (queries, dim) instead of made data")
    parser.add_argument("--gallery-npy", help="float32 (gallery, dim) instead of made data")
    parser.add_argument("--method", choices=METHODS, help="one method only (default: both)")
    args = parser.parse_args()
    if bool(args.queries_npy) != bool(args.gallery_npy):
        parser.error("--queries-npy and --gallery-npy belong together")
    return args


def data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Queries and gallery, C-contiguous float32."""
    if args.queries_npy:
        rows = [np.ascontiguousarray(np.load(path), dtype=np.float32) for path in (args.queries_npy, args.gallery_npy)]
        return rows[0], rows[1]
    identities = -(-args.gallery // PER_IDENTITY)
    made = clusters.Clusters(identities, args.dim, args.seed)
    queries, items = np.arange(args.queries), np.arange(args.gallery)
    return (
        clusters.old_rows(made, queries % identities, queries, clusters.QUERIES),
        clusters.old_rows(made, items // PER_IDENTITY, items, clusters.GALLERY),
    )


def numpy_search(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and gallery positions of each query's k best, best first."""
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    best_ids = np.full((len(queries), k), -1, dtype=np.int64)
    for q in range(0, len(queries), QUERY_BLOCK):
        block = queries[q : q + QUERY_BLOCK]
        scores, ids = best_scores[q : q + QUERY_BLOCK], best_ids[q : q + QUERY_BLOCK]
        for g in range(0, len(gallery), GALLERY_BLOCK):
            product = block @ gallery[g : g + GALLERY_BLOCK].T
            near = np.argpartition(product, -min(k, product.shape[1]), axis=1)[:, -k:]
            merged = np.concatenate([scores, np.take_along_axis(product, near, axis=1)], axis=1)
            merged_ids = np.concatenate([ids, near + g], axis=1)
            kept = np.argpartition(merged, -k, axis=1)[:, -k:]
            scores[:] = np.take_along_axis(merged, kept, axis=1)
            ids[:] = np.take_along_axis(merged_ids, kept, axis=1)
    order = np.argsort(-best_scores, axis=1, kind="stable")
    return np.take_along_axis(best_scores, order, axis=1), np.take_along_axis(best_ids, order, axis=1)


def searcher(
    method: str, queries: np.ndarray, gallery: np.ndarray, k: int
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """What is timed; builds the index before."""
    if method == "numpy":
        return lambda: numpy_search(queries, gallery, k)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return lambda: index.search(queries, k)


def peak_mib() -> float:
    """This process's peak resident memory (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(args: argparse.Namespace) -> dict:
    """Times one method."""
    queries, gallery = data(args)
    k = min(args.k, len(gallery))
    faiss.omp_set_num_threads(args.threads)
    with threadpool_limits(limits=args.threads):
        search = searcher(args.method, queries, gallery, k)
        before = psutil.Process().memory_info().rss / 2**20
        wall, cpu = [], []
        for _ in range(args.repeat):
            start, start_cpu = time.perf_counter(), time.process_time()
            scores, ids = search()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        pools = [
            {key: pool.get(key) for key in ("prefix", "version", "architecture", "num_threads")}
            for pool in threadpool_info()
        ]
    return {
        "method": args.method,
        "queries": len(queries),
        "gallery": len(gallery),
        "dim": gallery.shape[1],
        "k": k,
        "threads": args.threads,
        "median_seconds": statistics.median(wall),
        "seconds": wall,
        "median_cpu_seconds": statistics.median(cpu),
        "cpu_seconds": cpu,
        "peak_rss_mib": peak_mib(),
        "rss_before_search_mib": before,
        "mean_best_score": float(scores[:, 0].mean()),
        "mean_kth_score": float(scores[:, -1].mean()),
        "ids_sum": int(ids.sum()),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "pools": pools,
        "versions": {name: version(name) for name in ("faiss-cpu", "numpy")},
    }


def main() -> None:
    args = parse()
    if args.method:
        print(json.dumps(run(args)))
        return
    for method in METHODS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--method", method], check=True)


if __name__ == "__main__":
    main()
