"""The shape of MobileNetV2 (Sandler et al., 2018, table 2), for those who build it: ONNX and PyTorch."""

from collections.abc import Iterator

SIDE = 224
CHANNELS = 1280
# Expansion, channels, blocks, stride: table 2 of the paper.
BOTTLENECKS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

# Inputs, outputs, kernel, stride, groups, whether a ReLU6 follows.
Convolution = tuple[int, int, int, int, int, bool]


def blocks() -> Iterator[tuple[list[Convolution], bool]]:
    """Each block's convolutions, and whether what goes in is added to what comes out."""
    channels = 32
    yield [(3, channels, 3, 2, 1, True)], False
    for expansion, outputs, n_blocks, first_stride in BOTTLENECKS:
        for block in range(n_blocks):
            stride, wide = (first_stride if block == 0 else 1), channels * expansion
            convolutions = [(channels, wide, 1, 1, 1, True)] if expansion > 1 else []
            convolutions += [(wide, wide, 3, stride, wide, True), (wide, outputs, 1, 1, 1, False)]
            yield convolutions, stride == 1 and channels == outputs
            channels = outputs
    yield [(channels, CHANNELS, 1, 1, 1, True)], False


def multiply_adds() -> int:
    """Of one image."""
    side, total = SIDE, 0
    for convolutions, _ in blocks():
        for inputs, outputs, kernel, stride, groups, _ in convolutions:
            side = -(-side // stride)
            total += side * side * outputs * (inputs // groups) * kernel * kernel
    return total
