"""PyTorch's side of `benches/gpu.sh`: one JSON line with the median milliseconds of MobileNetV2's shape on a batch, and of a
large f32 product, whose GFLOP/s stand for what the device can do. Needs PyTorch alone.

    python torch_mobilenet.py --device cuda|cpu [--batch 32] [--calls 50] [--side 8192]
"""

import argparse
import json
import statistics
import time

import mobilenet
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, convolutions: list[mobilenet.Convolution], is_added: bool) -> None:
        super().__init__()
        layers = []
        for inputs, outputs, kernel, stride, groups, relu in convolutions:
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups))
            layers += [nn.ReLU6(inplace=True)] if relu else []
        self.layers = nn.Sequential(*layers)
        self.is_added = is_added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.is_added else self.layers(x)


def median_milliseconds(work, calls: int, device: str) -> float:
    milliseconds = []
    for _ in range(calls + 3):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        milliseconds.append(1000 * (time.perf_counter() - start))
    # The first calls choose algorithms.
    return statistics.median(milliseconds[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--side", type=int, default=8192, help="of the square matrices")
    args = parser.parse_args()
    # As in the tool: f32, not TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    blocks = [Block(*block) for block in mobilenet.blocks()]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().to(args.device)
    images = torch.rand(args.batch, 3, mobilenet.SIDE, mobilenet.SIDE)
    a, b = (torch.rand(args.side, args.side, device=args.device) for _ in "ab")
    with torch.inference_mode():
        # Images come from the processor and embeddings go back to it, as in the tool.
        model_ms = median_milliseconds(lambda: model(images.to(args.device)).cpu(), args.calls, args.device)
        product_ms = median_milliseconds(lambda: a @ b, 5, args.device)
    gflops = 2 * args.side**3 / product_ms / 1e6
    print(json.dumps({"version": torch.__version__, "model_ms": model_ms, "product_gflops": gflops}))


if __name__ == "__main__":
    main()
