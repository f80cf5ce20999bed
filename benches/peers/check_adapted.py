"""Holds adapted models against onnx.checker and against their heads in numpy.

    python3 -m venv target/onnx-venv && target/onnx-venv/bin/pip install onnx onnxruntime numpy
    cargo build --release && target/onnx-venv/bin/python benches/peers/check_adapted.py

For each pair of fixtures it runs `compat-audit adapt`, lets onnx.checker look at the result (shape inference included), and
compares its output in onnxruntime, at batches of 1, 2 and 5, with the new model's own output pushed through the weights that
were appended. Prints the largest difference of a pair; ends with 1 when one exceeds 1e-5.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "fixtures/data"
# Folder, old, new, more arguments.
PAIRS = [
    ("emoji", "old.onnx", "new_incompatible.onnx", ["--head", "linear"]),
    ("emoji", "old.onnx", "new_incompatible.onnx", ["--head", "mlp"]),
    ("emoji", "old.onnx", "old_int8.onnx", ["--head", "closed-form"]),
    ("text", "wl256.onnx", "lsa64.onnx", ["--head", "closed-form"]),
    ("text", "wl64.onnx", "wl256.onnx", ["--head", "linear"]),
    ("tiny_text", "old.onnx", "new.onnx", ["--head", "closed-form"]),
]


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def inputs_of(session, batch, rng):
    feeds = {}
    for value in session.get_inputs():
        shape = [batch] + [7 if isinstance(d, str) or d is None else d for d in value.shape[1:]]
        if "int" in value.type:
            feeds[value.name] = np.ones(shape, np.int64) if "mask" in value.name else rng.integers(0, 90, shape)
            if "type" in value.name:
                feeds[value.name] = np.zeros(shape, np.int64)
        else:
            feeds[value.name] = rng.random(shape, np.float32)
    return feeds


def check(folder, old, new, more, out):
    data = DATA / folder
    command = [ROOT / "target/release/compat-audit", "adapt", data / old, data / new, data, "--out", out, "--force"]
    command += ["--report", out.parent / "report", "--cache-dir", ROOT / "target/cache", "--fail-on", "never", "-q", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    onnx.checker.check_model(str(out), full_check=True)
    weights = {t.name.rsplit("/", 1)[1]: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer if "/before_head" in t.name}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    before = onnxruntime.InferenceSession(data / new, options)
    after = onnxruntime.InferenceSession(out, options)
    assert [i.name for i in before.get_inputs()] == [i.name for i in after.get_inputs()]
    assert [o.name for o in before.get_outputs()] == [o.name for o in after.get_outputs()]
    rng, worst = np.random.default_rng(0), 0.0
    for batch in (1, 2, 5):
        feeds = inputs_of(before, batch, rng)
        x = before.run(None, feeds)[0].astype(np.float32)
        if x.ndim == 3:
            x = x.mean(axis=1)
        x = unit(x)
        y = x @ weights["weights"]
        if "hidden_weights" in weights:
            hidden = np.maximum(x @ weights["hidden_weights"] + weights["hidden_bias"], 0)
            y += hidden @ weights["out_weights"]
        given = after.run(None, feeds)[0]
        assert given.shape == (batch, weights["weights"].shape[1]), given.shape
        worst = max(worst, float(np.abs(given - unit(y)).max()))
    return worst


def main():
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for pair in PAIRS:
            worst = check(*pair, pathlib.Path(folder) / "adapted.onnx")
            failed |= worst > 1e-5
            print(f"{pair[0]}: {pair[1]} -> {pair[2]} {' '.join(pair[3])}: checker passes, largest difference {worst:.1e}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
