"""The nearest equivalent of a compat-audit run with the usual Python stack.

    target/peers-venv/bin/python benches/peers/audit.py OLD NEW DATA --out DIR [--threads 2] [--cache DIR]

OLD and NEW are .onnx models or .npy rows with .ids.txt beside them, DATA is a manifest or a folder. Writes report.json,
report.png and report.html to DIR, and prints one JSON line: seconds by stage, in all, and peak memory. --check REPORT
compares the measures with a report.json of compat-audit and exits with 1 when one differs by more than 1e-3. --lean
leaves out ranx and scikit-learn's ROC, whose numbers the exact ranks and the histograms already give.

Not done: rollback (old->new), flips' and slices' tests, the backfill's plan and its held-out share, random orders,
threshold transfer, consensus, neighbours' credibility, the change without the least credible, what-if maps, CKA, worst
flips, byte-identical inputs, several labels an item, qrels, tensors. What a large gallery leaves out beside that
stands under `left_out` in report.json.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import inference
import numpy as np
import output
import ranking
from threadpoolctl import threadpool_limits

import structure
from probe import JUNK, embed, load

PERMUTATIONS = 200
# Scores that a stage beside the ranking may cost; beyond, it takes evenly spaced queries or items.
CREDIBILITY_SCORES, NULL_SCORES, ROC_SCORES = 10**10, 5 * 10**8, 5 * 10**6
TOLERANCE = 1e-3


class Clock:
    """Wall seconds by stage, from the start of the process (Linux)."""

    def __init__(self) -> None:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        self.start = self.last = int(started) / os.sysconf("SC_CLK_TCK")
        self.seconds: dict[str, float] = {}
        self.lap("start")

    def lap(self, stage: str) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.seconds[stage] = round(now - self.last, 3)
        self.last = now


def main() -> None:
    clock = Clock()
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    # Threads are those of pools over blocks, with one BLAS thread each.
    with threadpool_limits(1):
        report = audit(args, clock)
    (args.out / "report.json").write_text(json.dumps(report, indent=1))
    output.figure(report, args.out / "report.png")
    output.page(report, args.out / "report.png", args.out / "report.html")
    clock.lap("report")
    wrong = check(report, json.loads(args.check.read_text())) if args.check else False
    print(
        json.dumps(
            {
                "stages": clock.seconds,
                "total_seconds": round(clock.last - clock.start, 3),
                "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                "threads": args.threads,
            }
        )
    )
    raise SystemExit(int(wrong))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder of embeddings, read where they are and else written")
    parser.add_argument("--check", type=Path, help="report.json of compat-audit")
    parser.add_argument("--lean", action="store_true", help="without ranx and scikit-learn's ROC")
    return parser.parse_args()


def audit(args: argparse.Namespace, clock: Clock) -> dict:
    probe = load(args.data)
    clock.lap("probe")
    old, new = embed(probe, [args.old, args.new], args.threads, args.cache)
    clock.lap("embed")

    protocol = ranking.Protocol.of(probe)
    left_out: list[str] = []
    gallery = ranking.in_place(old, protocol.gallery)
    gallery_identity = probe.identity[protocol.gallery]
    known = gallery_identity != JUNK
    known = slice(None) if known.all() else np.flatnonzero(known)
    prototypes = structure.Prototypes(gallery[known], gallery_identity[known])
    own_cosine = prototypes.own_cosine()
    credible = credibility(prototypes, own_cosine, args.threads, left_out)
    clock.lap("credibility")
    split = structure.subclusters(prototypes.rows, prototypes.own, args.threads)
    clock.lap("subclusters")

    # Least like the rest of its identity first; an identity's only item, and junk, last.
    unlike = np.full(len(gallery), np.inf)
    unlike[known] = np.nan_to_num(own_cosine, nan=np.inf)
    found = ranking.rank(old, new, protocol, np.argsort(unlike, kind="stable"), args.threads)
    clock.lap("rank")
    values = {name: ranking.measures(found[name].curve[0], protocol.n_relevant) for name in ranking.PAIRINGS}
    k_most = min(ranking.TOP, len(gallery) - len(protocol.junk) - max(len(removed) for removed in protocol.removed))
    lists = {name: ranking.top_lists(found[name], protocol, k_most) for name in ranking.PAIRINGS}
    overlaps = {
        k: ranking.overlap(lists["old->old"][1][:, :k], lists["new->old"][1][:, :k])
        for k in (1, 10, 100)
        if k <= k_most
    }
    clock.lap("measures")

    identity = probe.identity[protocol.queries]
    estimates = intervals(values, found["new->old"].curve, protocol, identity, args.seed)
    clock.lap("bootstrap")
    null, null_queries = inference.shuffled_labels(
        old, protocol, probe.identity, PERMUTATIONS, NULL_SCORES, args.seed, args.threads
    )
    if null_queries < len(identity):
        left_out.append(f"shuffled labels: on {null_queries} of {len(identity)} queries")
    clock.lap("null")
    verification = verify(args.lean, found, old, new, protocol, identity, left_out)
    clock.lap("verification")
    by_ranx = None if args.lean else ranx_measures(lists, protocol)
    clock.lap("ranx")
    flips = {
        "negative": (values["old->old"]["CMC@1"] > values["new->old"]["CMC@1"]).mean(),
        "positive": (values["old->old"]["CMC@1"] < values["new->old"]["CMC@1"]).mean(),
        "excess": (
            (values["old->old"]["CMC@1"] > values["new->old"]["CMC@1"]) & (values["new->new"]["CMC@1"] == 1)
        ).mean(),
    }
    return {
        "probe": {
            "items": len(probe.ids),
            "queries": len(protocol.queries),
            "excluded": protocol.excluded,
            "gallery": len(gallery),
            "identities": len(prototypes.names),
        },
        "measures": {name: {m: float(v.mean()) for m, v in each.items()} for name, each in values.items()},
        "estimates": estimates,
        "flips": {name: float(share) for name, share in flips.items()},
        "overlap": overlaps,
        "verification": verification,
        "ranx": by_ranx,
        "shuffled": {
            "mean": float(null.mean()),
            "permutations": PERMUTATIONS,
            "p_value": float((1 + (null >= values["old->old"]["mAP"].mean()).sum()) / (1 + PERMUTATIONS)),
        },
        "credibility": credible,
        "subclusters": {
            "split_identities": len(split),
            "subclusters": len(prototypes.names) + sum(split.values()) - len(split),
        },
        "left_out": left_out,
    }


def credibility(prototypes: structure.Prototypes, own_cosine: np.ndarray, threads: int, left_out: list[str]) -> dict:
    """Of every gallery item that is not its identity's only one, or of evenly spaced ones when that costs too much."""
    assessable = np.flatnonzero(~np.isnan(own_cosine))
    if not len(assessable):
        return {"assessed": 0}
    step = -(-len(assessable) * len(prototypes.names) // CREDIBILITY_SCORES)
    items = assessable[::step]
    if step > 1:
        left_out.append(f"credibility: of {len(items)} of {len(assessable)} gallery items")
    posterior, tau = prototypes.credibility(own_cosine, items, threads)
    histogram = np.histogram(posterior, bins=10, range=(0, 1))[0].tolist()
    return {"assessed": len(items), "temperature": tau, "mean": float(posterior.mean()), "histogram": histogram}


def intervals(values: dict, curve: np.ndarray, protocol: ranking.Protocol, identity: np.ndarray, seed: int) -> dict:
    """Of mAP and CMC@1 of each pairing, of D and W, and of the change at each step of the refresh."""
    today = values["old->old"]
    wanted = {f"{name} {measure}": values[name][measure] for name in ranking.PAIRINGS for measure in ("mAP", "CMC@1")}
    for change, name in (("D", "new->old"), ("W", "new->new")):
        wanted |= {f"{change} {measure}": values[name][measure] - today[measure] for measure in ("mAP", "CMC@1")}
    for step, ranks in enumerate(curve):
        wanted[f"refresh {step / ranking.STEPS:.2f}"] = (
            ranking.measures(ranks, protocol.n_relevant)["mAP"] - today["mAP"]
        )
    return inference.intervals(wanted, identity, seed)


def verify(
    lean: bool,
    found: dict[str, ranking.Ranks],
    old: np.ndarray,
    new: np.ndarray,
    protocol: ranking.Protocol,
    identity: np.ndarray,
    left_out: list[str],
) -> dict:
    """AUROC and TAR at FAR by pairing, where there are identities enough."""
    if len(np.unique(identity)) < inference.MIN_IDENTITIES:
        return {}
    if lean or len(protocol.queries) * len(protocol.gallery) > ROC_SCORES:
        left_out.append("verification: from histograms of 65,536 bins")
        return {name: inference.verification_by_histogram(each) for name, each in found.items()}
    rows = {"old": old, "new": new}
    out = {}
    for name, each in found.items():
        query, item = name.split("->")
        asked, gallery = rows[query][protocol.queries], rows[item][protocol.gallery]
        out[name] = inference.verification_by_sklearn(each, asked, gallery, protocol)
    return out


def ranx_measures(lists: dict[str, tuple[np.ndarray, np.ndarray]], protocol: ranking.Protocol) -> dict:
    """What ranx makes of the first 100 hits; MRR ends there."""
    from ranx import Qrels, Run, evaluate

    qrels = {}
    for query, (positions, n) in enumerate(zip(protocol.relevant, protocol.n_relevant, strict=True)):
        qrels[f"q{query}"] = {f"g{position}": 1 for position in positions[:n]}
    qrels = Qrels(qrels)
    metrics = ["hit_rate@1", "hit_rate@5", "hit_rate@10", "recall@1", "recall@5", "recall@10", "mrr", "ndcg@10"]
    out = {}
    for name, (scores, items) in lists.items():
        rows = enumerate(zip(items.tolist(), scores.tolist(), strict=True))
        run = Run({f"q{q}": {f"g{g}": s for g, s in zip(hits, of, strict=True)} for q, (hits, of) in rows})
        out[name] = {metric: float(value) for metric, value in evaluate(qrels, run, metrics).items()}
    return out


def check(report: dict, reference: dict) -> bool:
    """Prints both values of every shared measure; whether one differs by more than the tolerance."""
    pairs = []
    for pairing in reference["pairings"]:
        name = pairing["pairing"]
        if name not in ranking.PAIRINGS:
            continue
        for measure in pairing["measures"]:
            pairs.append((f"{name} {measure['measure']}", report["measures"][name][measure["measure"]], measure))
        if report["verification"] and pairing["verification"]:
            pairs.append((f"{name} AUROC", report["verification"][name]["auroc"], pairing["verification"]["auroc"]))
    flips = reference["compatibility"]["flips"]
    pairs += [(f"{kind} flips", report["flips"][kind], flips[kind]) for kind in report["flips"]]
    for each in reference["compatibility"]["overlap"]:
        if each["k"] in report["overlap"]:
            pairs.append((f"overlap@{each['k']}", report["overlap"][each["k"]], each["overlap"]))
    wrong = False
    for name, own, other in pairs:
        other = other.get("estimate", other)["value"] if isinstance(other, dict) else other
        differs = abs(own - other) > TOLERANCE
        wrong |= differs
        print(f"{name:24} {own:.6f} {other:.6f} {own - other:+.1e}{'  DIFFERS' if differs else ''}")
    for name, other in (
        ("D mAP", reference["compatibility"]["change"][0]["estimate"]),
        ("W mAP", reference["upgrade_worth"]),
    ):
        own = report["estimates"][name]
        ends = " ".join(f"{own[end]:+.4f} ({other[end]:+.4f})" for end in ("value", "lower", "upper"))
        print(f"{name:24} {ends}")
    return wrong


if __name__ == "__main__":
    main()
