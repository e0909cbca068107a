"""Times the two quickstarts as a newcomer meets them: the whole command, from start to report.

    python tests/benchmarks/quickstarts.py

Each once, in a process of its own, in an empty folder, with all threads that torch takes by itself;
nothing else should be at work. Writes tests/benchmarks/results/quickstarts.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "quickstarts.json"


def seconds(name: str) -> float:
    """Of one run, which has to succeed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "fit"]
        command += ["--config", str(ROOT / "configs" / f"{name}.yaml")]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return round(time.perf_counter() - start, 1)


def main() -> None:
    """Runs both."""
    found = {name: seconds(name) for name in ("quickstart_flow", "quickstart")}
    text = json.dumps({"cores": os.cpu_count(), "seconds": found}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
