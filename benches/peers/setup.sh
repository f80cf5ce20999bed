#!/bin/sh
# Makes target/peers-venv with what the peers need; needs python3 with venv and pip alone.
set -eu
cd "$(dirname "$0")/../.."
python3 -m venv target/peers-venv
target/peers-venv/bin/pip install --quiet --disable-pip-version-check --requirement benches/peers/requirements.txt
target/peers-venv/bin/pip check
echo "ready: target/peers-venv/bin/python"
