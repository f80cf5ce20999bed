"""What one call of a session costs in the tool and in onnxruntime itself, in turns, on the same library.

    python session.py MODEL.onnx [--batch 32] [--threads 2] [-k 5]
    python session.py --make-mobilenet MODEL.onnx

Each turn is a process of its own, which reports the median of its calls: `cargo bench --bench embed -- session MODEL`
for the tool (values lent to the session, output read where it lies), `InferenceSession.run` on a numpy array here. Both
sessions take the tool's options. --make-mobilenet writes a model of MobileNetV2's shape
(Sandler et al., 2018, table 2; 224 x 224, 300 million multiply-adds) with random weights.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import mobilenet
import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))


def make_mobilenet(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def convolution(source: str, inputs: int, outputs: int, kernel: int, stride: int, group: int, relu: bool) -> str:
        at = len(nodes)
        scale = np.sqrt(2 / (inputs // group * kernel * kernel))
        weight = rng.normal(0, scale, (outputs, inputs // group, kernel, kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{at}"))
        weights.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"b{at}"))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [source, f"w{at}", f"b{at}"], [f"c{at}"], strides=[stride] * 2, pads=pads, group=group)
        )
        if not relu:
            return f"c{at}"
        nodes.append(helper.make_node("Clip", [f"c{at}", "zero", "six"], [f"r{at}"]))
        return f"r{at}"

    weights += [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]
    last = "image"
    for convolutions, is_added in mobilenet.blocks():
        before = last
        for inputs, outputs, kernel, stride, groups, relu in convolutions:
            last = convolution(last, inputs, outputs, kernel, stride, groups, relu)
        if is_added:
            nodes.append(helper.make_node("Add", [before, last], [f"sum{len(nodes)}"]))
            last = nodes[-1].output[0]
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["embedding"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, mobilenet.SIDE, mobilenet.SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", mobilenet.CHANNELS])
    graph = helper.make_graph(nodes, "mobilenet", [image], [embedding], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def opened(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with the tool's options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads that spin take the cores from those that decode: half the images a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Else products of u8 and i8 saturate on CPUs without VNNI, and an int8 model is another one there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def here(model: Path, batch: int, threads: int, calls: int) -> float:
    """Median milliseconds of a call."""
    session = opened(model, threads)
    entry = session.get_inputs()[0]
    shape = [batch, *entry.shape[1:]]
    values = (np.arange(np.prod(shape)) % 251 / 251).astype(np.float32).reshape(shape)
    milliseconds = []
    for _ in range(calls):
        start = time.perf_counter()
        (out,) = session.run([session.get_outputs()[0].name], {entry.name: values})
        out.sum()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return statistics.median(milliseconds)


def tool(model: Path, batch: int, threads: int, calls: int, library: Path = LIBRARY, device: str = "cpu") -> float:
    """Median milliseconds of a call."""
    words = ["session", model.resolve(), batch, threads, calls, library, device]
    command = ["cargo", "bench", "--quiet", "--bench", "embed", "--", *map(str, words)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--make-mobilenet", action="store_true")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--calls", type=int, default=50, help="calls a turn")
    parser.add_argument("-k", type=int, default=5, help="turns of each")
    args = parser.parse_args()
    if args.make_mobilenet:
        return make_mobilenet(args.model)
    words = (args.model, args.batch, args.threads, args.calls)
    tool(*words)
    turns = [(tool(*words), here(*words)) for _ in range(args.k)]
    ours, theirs = (statistics.median(of) for of in zip(*turns, strict=True))
    print(f"{args.model.name} x {args.batch}: tool {ours:.3f} ms, onnxruntime {theirs:.3f} ms, ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
