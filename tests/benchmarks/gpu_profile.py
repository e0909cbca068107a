"""What a training step waits for: the card, or the processor that launches its kernels.

    python tests/benchmarks/gpu_profile.py --output gpu_profile.csv
    python tests/benchmarks/gpu_profile.py --tiny      # on toy sizes and the CPU, to try it

A LoRA step of SD 1.5 at 512 pixels, forward and backward of four pictures: milliseconds of a step
by the clock and on the card, kernels launched in it, and the operations the card was longest at.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent))
import gpu_training
from gpu_layouts import stable_diffusion
from gpu_measure import Bench

PROFILED = 2  # steps
LONGEST = 8  # operations that are named


def seen(bench: Bench, step: Callable[[], None]) -> list[tuple[str, float, str]]:
    """What, how much, of what."""
    way = bench.timed(step)
    cuda = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as found:
        for _ in range(PROFILED):
            step()
        bench.synchronize()
    every = found.key_averages()
    kernels = [each for each in every if each.device_type == DeviceType.CUDA]
    busy = sum(each.self_device_time_total for each in kernels)
    launched = sum(each.count for each in kernels)
    calls = [each for each in every if each.key.startswith("aten::")]
    calls.sort(key=lambda each: each.self_device_time_total, reverse=True)
    return [
        ("step, by the clock", way.seconds * 1e3, "ms"),
        ("step, kernels on the card", busy / PROFILED / 1e3, "ms"),
        ("kernels", launched / PROFILED, "a step"),
        *(
            row
            for each in calls[:LONGEST]
            for row in (
                (each.key, each.self_device_time_total / PROFILED / 1e3, "ms on the card a step"),
                (each.key, each.count / PROFILED, "calls a step"),
            )
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu_profile.csv"))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device here; --tiny tries the script")
    device = torch.device("cpu" if args.tiny else "cuda")
    bench = Bench(device, args.tiny, time.monotonic() + 120, slice_s=0.3 if args.tiny else 5.0)
    backbone = stable_diffusion(device, args.tiny)
    module = gpu_training.module_of(backbone, method="lora").to(device)
    rows = seen(bench, gpu_training.there_and_back(bench, module, 1 if args.tiny else 4))
    with args.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "value", "unit"))
        writer.writerows((what, f"{value:.4g}", unit) for what, value, unit in rows)
    sys.stdout.write(args.output.read_text())


if __name__ == "__main__":
    main()
