"""The largest resident memory of a command (VmHWM), and by the minute its largest anonymous memory (RssAnon: without the pages
of mapped files, which the system takes back when it needs them).

    python3 benches/peers/peak_memory.py target/release/compat-audit OLD NEW DATA --no-cache --out DIR

Linux; nothing but Python's own library. RssAnon is read every .05 s: a shorter peak is missed; none of VmHWM is.
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
    resident, largest = 0, {}
    while process.poll() is None:
        found = dict(re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status.read_text()))
        # A process that has ended and was not waited for has no memory.
        if found:
            minute = int(time.monotonic() - start) // 60
            largest[minute] = max(largest.get(minute, 0), int(found["RssAnon"]) // 1024)
            resident = int(found["VmHWM"]) // 1024
        time.sleep(EVERY)
    for minute, mebibytes in largest.items():
        print(f"minute {minute}: {mebibytes} MiB anonymous")
    anonymous = max(largest.values(), default=0)
    seconds = time.monotonic() - start
    print(f"at most {resident} MiB resident, {anonymous} MiB anonymous; {seconds:.0f} s, exit code {process.returncode}")


if __name__ == "__main__":
    main()
