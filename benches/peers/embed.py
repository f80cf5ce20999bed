"""Embedding alone: the peer of the tool's embed stage, as `audit.py` embeds (see `probe.py`).

    python embed.py OLD.onnx NEW.onnx DATA [--threads N]

Prints one JSON line: items, seconds from reading the probe to normalised rows of both models, items a second (of both), peak
memory. The tool's side are the seconds of `embed` in report.json's run.stage_seconds, which include opening the models:

    compat-audit OLD.onnx NEW.onnx DATA --no-cache --threads N --out /tmp/report
"""

import argparse
import json
import resource
import time
from pathlib import Path

import probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    started = time.perf_counter()
    loaded = probe.load(args.data)
    probe.embed(loaded, [args.old, args.new], args.threads, cache=None)
    seconds = time.perf_counter() - started
    n = len(loaded.ids)
    found = {
        "items": n,
        "seconds": round(seconds, 4),
        "items_per_second": round(2 * n / seconds, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
