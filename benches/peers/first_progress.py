"""Seconds until a command shows its first sign of life on a terminal, and until it ends; the median of 5 runs.

    python3 benches/peers/first_progress.py target/release/compat-audit OLD NEW DATA --no-cache --out DIR

Linux and macOS; nothing but Python's own library.
"""

import os
import pty
import statistics
import sys
import time

RUNS = 5


def run(command: list[str]) -> tuple[float, float]:
    start = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    first = None
    while True:
        try:
            shown = os.read(terminal, 4096)
        except OSError:
            # Linux says so when the other side is closed.
            break
        if not shown:
            break
        first = first or time.monotonic() - start
    os.waitpid(pid, 0)
    os.close(terminal)
    end = time.monotonic() - start
    return first or end, end


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    runs = [run(sys.argv[1:]) for _ in range(RUNS)]
    first, end = (statistics.median(times) for times in zip(*runs))
    print(f"first output after {first:.3f} s, end after {end:.3f} s")


if __name__ == "__main__":
    main()
