"""Peak memory of CLiD over few and many images: it must not grow with their number.

    python tests/benchmarks/membership_memory.py [--images 200 2000]

Pictures of the procedural world are written to a folder once; for each number a process of its own
reads and measures so many of them (CLiD with 2 queries on the pocket) and tells its peak.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from shortcut_lightning import backbones
from shortcut_lightning.audit.collection import drawn
from shortcut_lightning.audit.splits import Split
from shortcut_lightning.membership import CLiD, Engine, NullOnly, read_pictures


def main() -> None:
    """Runs and reports."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        sys.stdout.write(json.dumps(measured(arguments.child)) + "\n")
        return
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = drawn(max(arguments.images), world_seed=0)
        for count in arguments.images:
            Split(pictures[:count], [], [], []).write(Path(folder) / str(count))
        del pictures
        for count in arguments.images:
            where = Path(folder) / str(count) / "members"
            command = [sys.executable, __file__, "--child", str(where)]
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            before, peaks[count] = json.loads(line.splitlines()[-1])
            sys.stdout.write(
                f"{count:6} images: peak {peaks[count]:.0f} MB ({before:.0f} MB with the model "
                "loaded)\n"
            )
            sys.stdout.flush()
    fewest, most = min(peaks), max(peaks)
    sys.stdout.write(f"{most} over {fewest} images: {peaks[most] / peaks[fewest]:.3f}\n")


def measured(folder: Path) -> tuple[float, float]:
    """Peak MB of this process with the model loaded, and after measuring the folder."""
    model = backbones.load("pocket").eval()
    before = peak()
    pictures, _ = read_pictures(folder, "members", model.resolution)
    engine = Engine({"model": model}, batch_size=64, progress=False)
    engine.measure(pictures, {"CLiD": CLiD(NullOnly(), n_t=1)}, ["model"])
    return before, peak()


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
