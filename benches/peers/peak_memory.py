"""The largest anonymous memory of a command (RssAnon: without the pages of mapped files, which the system takes back when
it needs them), by the minute, and the largest of all.

    python3 benches/peers/peak_memory.py target/release/compat-audit OLD NEW DATA --no-cache --out DIR

Linux; nothing but Python's own library. Read every .05 s: a shorter peak is missed.
"""

import pathlib
import re
import subprocess
import sys
import time

EVERY = 0.05


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    status = pathlib.Path(f"/proc/{process.pid}/status")
    start = time.monotonic()
    largest: dict[int, int] = {}
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        # A process that has ended and was not waited for has no memory.
        if found:
            minute = int(time.monotonic() - start) // 60
            largest[minute] = max(largest.get(minute, 0), int(found[1]) // 1024)
        time.sleep(EVERY)
    for minute, mebibytes in largest.items():
        print(f"minute {minute}: {mebibytes} MiB")
    print(f"at most {max(largest.values(), default=0)} MiB, {time.monotonic() - start:.0f} s, exit code {process.returncode}")


if __name__ == "__main__":
    main()
