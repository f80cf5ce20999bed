#!/bin/sh
# What a GPU does for models and scores: the same verdicts as on the CPU? how fast? Writes target/gpu.md.
#
#   benches/gpu.sh                       cpu, cuda and tensorrt
#   benches/gpu.sh cpu cuda:1            these
#   PYTORCH=/path/to/python benches/gpu.sh    also against PyTorch, and the device's f32 peak by a product there
#   CALLS=3 benches/gpu.sh cpu           session calls a figure: 50 are many without a GPU
#
# NOT YET RUN ON A GPU; on a CPU (`benches/gpu.sh cpu`) it is. Needs cargo, python3 with venv and pip, for a GPU its driver and CUDA.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- cpu cuda tensorrt
program=target/release/compat-audit
cargo build --release --locked
case "$*" in cpu) ;; *) $program runtime install --gpu ;; esac
# f32 on every device, TensorRT too.
export NVIDIA_TF32_OVERRIDE=0
[ -x target/peers-venv/bin/python ] || benches/peers/setup.sh
python=target/peers-venv/bin/python
[ -d target/images ] || $python benches/peers/make_stored.py --kind images --n 5000 --out target/images
[ -d target/stored ] || $python benches/peers/make_stored.py --queries 2000 --gallery 200000 --dim 384 --out target/stored
[ -f target/stored/audit.toml ] || printf '[audit]\nsample = 2000\n' > target/stored/audit.toml
[ -f target/mobilenet.onnx ] || $python benches/peers/session.py --make-mobilenet target/mobilenet.onnx
exec $python benches/peers/gpu.py --program $program --devices "$@" --images target/images --stored target/stored \
  --mobilenet target/mobilenet.onnx --out target/gpu.md ${CALLS:+--calls "$CALLS"} ${PYTORCH:+--torch "$PYTORCH"}
