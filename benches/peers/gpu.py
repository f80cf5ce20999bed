"""Models on a GPU against the same models on the CPU: the same verdict, how far apart, how fast. `benches/gpu.sh` calls it.

    python gpu.py --program compat-audit --devices cpu cuda tensorrt --images FOLDER --stored FOLDER --mobilenet MODEL --out FILE.md
        [--torch PYTHON]

Exit code 1 when a device ends with another verdict than the CPU, moves a measure by more than TOLERANCE, or changes anything of an
audit of stored embeddings, where it only finds out which scores matter.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import mobilenet
import polars
import session

ROOT = Path(__file__).resolve().parents[2]
EMOJI = ROOT / "fixtures/data/emoji"
MODELS = ("new_l2_compatible", "new_bct_near", "new_incompatible")
# In a measure: f32 sums in another order, and convolutions by other algorithms.
TOLERANCE = 1e-3
RUNS = 3
BATCHES = (32, 256)
# Queries, gallery items, dimensions, as elsewhere in docs/performance.md.
SEARCH = (2000, 200_000, 384)


def audit(program: str, device: str, new: Path, data: Path, out: Path, old: Path = EMOJI / "old.onnx") -> dict:
    """The report of an audit without the cache."""
    command = [program, old, new, data, "--no-cache", "--device", device, "--out", out]
    # These are verdicts; 2 is a broken set-up.
    ended = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    if ended.returncode not in (0, 1, 3):
        sys.exit(f"{' '.join(map(str, command))}\n{ended.stderr}")
    return json.loads((out / "report.json").read_text())


def measures(report: dict) -> dict[tuple[str, str], float]:
    rows = [(row["pairing"], of["measure"], of["estimate"]["value"]) for row in report["pairings"] for of in row["measures"]]
    return {(pairing, measure): value for pairing, measure, value in rows}


def moved_ranks(ours: Path, theirs: Path) -> float:
    """Share of the queries' first ranks that differ, over all pairings."""
    a, b = (polars.read_parquet(out / "items.parquet") for out in (ours, theirs))
    columns = [name for name in a.columns if name.startswith("first_rank:")]
    differ = [(a[name] != b[name]).drop_nulls() for name in columns]
    return sum(column.sum() for column in differ) / sum(len(column) for column in differ)


def compare(args: argparse.Namespace) -> tuple[list[str], bool]:
    lines = [
        "| model | device | provider | verdict | largest difference of a measure | first ranks that differ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    agree = True
    for model in MODELS:
        reference = args.out.parent / f"gpu-{model}-reference"
        on_cpu = audit(args.program, "cpu", EMOJI / f"{model}.onnx", EMOJI, reference)
        for device in args.devices:
            out = args.out.parent / f"gpu-{model}-{device.replace(':', '')}"
            report = audit(args.program, device, EMOJI / f"{model}.onnx", EMOJI, out)
            verdict, found = report["verdict"]["verdict"], measures(report)
            apart = max(abs(found[key] - value) for key, value in measures(on_cpu).items())
            agree &= verdict == on_cpu["verdict"]["verdict"] and apart <= TOLERANCE
            share = moved_ranks(reference, out)
            lines.append(f"| {model} | {device} | {report['new']['provider']} | {verdict} | {apart:.1e} | {share:.2%} |")
    return lines, agree


def speeds(args: argparse.Namespace) -> list[str]:
    lines = [
        "| device | both emoji models, images/s |"
        + "".join(f" MobileNetV2's shape x {batch}, images/s (GFLOP/s) |" for batch in BATCHES),
        "| --- | --- |" + " --- |" * len(BATCHES),
    ]

    def cell(milliseconds: float, batch: int) -> str:
        gflops = 2 * mobilenet.multiply_adds() * batch / milliseconds / 1e6
        return f" {1000 * batch / milliseconds:.0f} ({gflops:.0f}) |"

    for device in args.devices:
        out = args.out.parent / f"gpu-images-{device.replace(':', '')}"
        model = EMOJI / f"{MODELS[0]}.onnx"
        reports = [audit(args.program, device, model, args.images, out) for _ in range(RUNS)]
        embed = statistics.median(dict(report["run"]["stage_seconds"])["embed"] for report in reports)
        run, n_images = reports[0]["run"], reports[0]["probe"]["items"]
        library = ROOT / run["runtime_library"]
        calls = [
            session.tool(args.mobilenet, batch, run["threads"], args.calls, library, device) for batch in BATCHES
        ]
        cells = "".join(cell(call, batch) for call, batch in zip(calls, BATCHES, strict=True))
        lines.append(f"| {device} | {n_images / embed:.0f} |{cells}")
    if args.torch:
        for device in {device.split(":")[0].replace("tensorrt", "cuda"): None for device in args.devices}:
            script = ROOT / "benches/peers/torch_mobilenet.py"
            found = []
            for batch in BATCHES:
                words = [args.torch, script, "--device", device, "--batch", batch, "--calls", args.calls]
                words += ["--side", 2048] if device == "cpu" else []
                said = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
                found.append(json.loads(said))
            cells = "".join(cell(of["model_ms"], batch) for of, batch in zip(found, BATCHES, strict=True))
            peak = max(of["product_gflops"] for of in found)
            lines.append(f"| PyTorch {found[0]['version']}, {device} | f32 product: {peak:.0f} GFLOP/s |{cells}")
    return lines


def scores(args: argparse.Namespace) -> tuple[list[str], bool]:
    """Long passes over scores that begin on a device: as fast as that, and nothing else changes."""
    lines = [
        "| device | first pass | "
        + " x ".join(f"{n:,}" for n in SEARCH)
        + ", s | GFLOP/s | audit of stored embeddings, s | its report |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    cargo = ["cargo", "bench", "--quiet", "--locked", "--bench", "scores", "--", "search"]
    flop = 2 * SEARCH[0] * SEARCH[1] * SEARCH[2]
    reference, agree = None, True
    for device in dict.fromkeys(["cpu", *args.devices]):
        out = args.out.parent / f"gpu-stored-{device.replace(':', '')}"
        stored = [args.stored / name for name in ("new.npy", "manifest.csv")]
        report = audit(args.program, device, *stored, out, old=args.stored / "old.npy")
        run = report.pop("run")
        if device != "cpu" and not run.get("first_pass"):
            sys.exit(f"{device}: no pass over scores began there")
        # The first one is the CPU's own.
        words = [*cargo, *SEARCH, run["threads"], *([] if reference is None else [device])]
        said = subprocess.run(list(map(str, words)), cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found = json.loads(said.strip().splitlines()[-1])
        same = reference is None or report == reference
        reference = reference or report
        agree &= same
        seconds = sum(lap for _, lap in run["stage_seconds"])
        lines.append(
            f"| {device} | {found['first_pass'] or 'the tool itself'} | {found['median']:.2f} | {flop / found['median'] / 1e9:.0f} "
            f"| {seconds:.1f} | {'the same' if same else 'ANOTHER'} |"
        )
    return lines, agree


def machine() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = "no NVIDIA GPU"
    return f"{platform.platform()}, {platform.machine()}; {gpu}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--devices", nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--stored", type=Path, required=True)
    parser.add_argument("--mobilenet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--torch", help="a Python with PyTorch")
    parser.add_argument("--calls", type=int, default=50, help="session calls a figure")
    args = parser.parse_args()
    compared, agree = compare(args)
    scored, same = scores(args)
    text = "\n".join([f"{machine()}.", "", *compared, "", *speeds(args), "", *scored, ""])
    args.out.write_text(text)
    print(text)
    if not agree:
        sys.exit(f"a device does not agree with the CPU (tolerance {TOLERANCE} in a measure)")
    if not same:
        sys.exit("the audit of stored embeddings differs: scores must not depend on where their first pass runs")


if __name__ == "__main__":
    main()
