"""Runs compat-audit and audit.py alternately on the same input and prints a row of a Markdown table.

    python3 benches/peers/run.py OLD NEW DATA [--cache cold|warm] [--threads 2] [-k 5] [--peer-args=--lean]

Each runs once unmeasured first (page cache, compiled kernels, and with --cache warm the embeddings), unless told
--no-warm-up, then k times in turns: medians (and the range) of the wall seconds from start to exit, of CPU seconds,
which show whether something else held the cores, and of the largest resident memory of the process (Linux; not of its
helpers). Both use the ONNX Runtime of target/peers-venv and as many threads; OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE
are unset.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "target/peers-venv"
VERDICTS = {0, 1, 3}


def main() -> None:
    args = parse()
    env = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env |= dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(args.threads))
    with tempfile.TemporaryDirectory() as scratch:
        commands = {"tool": tool(args, Path(scratch)), "peer": peer(args, Path(scratch))}
        for name, command in commands.items() if args.warm_up else ():
            run(name, command, env)
        measured: dict[str, list[tuple[float, float, float]]] = {"tool": [], "peer": []}
        for _ in range(args.k):
            for name, command in commands.items():
                measured[name].append(run(name, command, env))
    medians = {name: [statistics.median(of) for of in zip(*runs, strict=True)] for name, runs in measured.items()}
    cells = [args.label or args.data, args.cache, args.threads, args.k]
    for name, runs in measured.items():
        walls = [each[0] for each in runs]
        cells.append(f"{medians[name][0]:.2f} ({min(walls):.2f} to {max(walls):.2f})")
    cells.append(f"{medians['peer'][0] / medians['tool'][0]:.2f}")
    cells += [f"{medians[name][1]:.2f}" for name in commands]
    cells += [f"{medians[name][2]:.0f}" for name in commands]
    cells.append(f"{medians['peer'][2] / medians['tool'][2]:.2f}")
    heads = ["input", "cache", "threads", "runs", "tool, s", "Python, s", "ratio", "tool, CPU s", "Python, CPU s"]
    heads += ["tool, MiB", "Python, MiB", "ratio"]
    for row in (heads, ["---"] * len(heads), cells):
        print(f"| {' | '.join(map(str, row))} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tool", type=Path, default=ROOT / "target/release/compat-audit")
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold", help="whether embeddings are cached")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-k", type=int, default=5, help="measured runs of each")
    parser.add_argument("--no-warm-up", dest="warm_up", action="store_false", help="for inputs that take an hour")
    parser.add_argument("--label", help="first cell of the row (default: DATA)")
    parser.add_argument("--peer-args", default="", help="further arguments of audit.py")
    return parser.parse_args()


def tool(args: argparse.Namespace, scratch: Path) -> list[str]:
    command = [args.tool, args.old, args.new, args.data, "--out", scratch / "tool", "--quiet", "--offline"]
    command += ["--threads", args.threads]
    command += ["--no-cache"] if args.cache == "cold" else ["--cache-dir", scratch / "tool-cache"]
    if args.old.suffix == ".onnx":
        command += ["--onnxruntime", next(VENV.glob("lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))]
    return [str(part) for part in command]


def peer(args: argparse.Namespace, scratch: Path) -> list[str]:
    command = [VENV / "bin/python", ROOT / "benches/peers/audit.py", args.old, args.new, args.data]
    command += ["--out", scratch / "peer", "--threads", args.threads]
    command += ["--cache", scratch / "peer-cache"] if args.cache == "warm" else []
    return [str(part) for part in command] + shlex.split(args.peer_args)


def run(name: str, command: list[str], env: dict[str, str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, peak resident MiB."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (VERDICTS if name == "tool" else {0}):
            said.seek(0)
            raise SystemExit(f"{shlex.join(command)} exited with {process.returncode}:\n{said.read()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
