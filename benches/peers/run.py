"""Runs compat-audit and audit.py alternately on the same input and prints a row of a Markdown table.

    python3 benches/peers/run.py OLD NEW DATA [--cache cold|warm] [--threads 2] [-k 5] [--peer-args=--lean]

Each runs once unmeasured first (page cache, compiled kernels, and with --cache warm the embeddings), then k times in
turns: wall seconds from start to exit, and the largest resident memory of the process (Linux; not of its helpers). Both
use the ONNX Runtime of target/peers-venv and as many threads; OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset.
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
        for name, command in commands.items():
            run(name, command, env)
        measured: dict[str, list[tuple[float, float]]] = {"tool": [], "peer": []}
        for _ in range(args.k):
            for name, command in commands.items():
                measured[name].append(run(name, command, env))
    seconds = {name: [each[0] for each in runs] for name, runs in measured.items()}
    memory = {name: statistics.median(each[1] for each in runs) for name, runs in measured.items()}
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    spread = {name: f"{medians[name]:.2f} ({min(each):.2f} to {max(each):.2f})" for name, each in seconds.items()}
    print("| input | cache | threads | runs | tool, s | Python, s | ratio | tool, MiB | Python, MiB | ratio |")
    print("|" + " --- |" * 10)
    print(
        f"| {args.label or args.data} | {args.cache} | {args.threads} | {args.k} | {spread['tool']} | {spread['peer']} "
        f"| {medians['peer'] / medians['tool']:.2f} | {memory['tool']:.0f} | {memory['peer']:.0f} "
        f"| {memory['peer'] / memory['tool']:.2f} |"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tool", type=Path, default=ROOT / "target/release/compat-audit")
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold", help="whether embeddings are cached")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-k", type=int, default=5, help="measured runs of each")
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


def run(name: str, command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak resident MiB."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (VERDICTS if name == "tool" else {0}):
            said.seek(0)
            raise SystemExit(f"{shlex.join(command)} exited with {process.returncode}:\n{said.read()}")
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
