"""How fast and how large everything is on this machine's card, in one command.

    python tests/benchmarks/gpu.py --minutes 8
    python tests/benchmarks/gpu.py --device cpu --tiny      # on toy sizes, to try the script

Random weights in published layouts; the most telling measurements come first and the rest as far as
the time allows. Each is a ratio to a plain re-creation of the peer's loop in the same run, and a
share of what the card reaches in bf16 matrix products, by counted operations. Two files are written
after every measurement, `<output>/gpu.json` and `gpu.md`: a run that is cut off keeps what it has.
A measurement that fails or runs out of memory is a row with its reason; after one that a card does
not survive the script starts itself anew and goes on (`--go_on`, which also goes on from an earlier
run's rows).
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import gpu_asking
import gpu_training
from gpu_layouts import flux, sdxl, stable_diffusion
from gpu_measure import Bench, Row, Skipped, Way, ceiling, why

from shortcut_lightning.files.atomic import atomic

LORA = "SD 1.5 LoRA step, 512"
Measure = Callable[[Bench, Row], None]


def channels_last(backbone: torch.nn.Module) -> None:
    """Pictures' channels last in memory, in the convolutions."""
    backbone.denoiser.to(memory_format=torch.channels_last)
    backbone.vae.to(memory_format=torch.channels_last)


# Most telling first.
MEASUREMENTS: dict[str, Measure] = {
    LORA: gpu_training.step(stable_diffusion, "lora", 4),
    "CLiD, 512, bf16": gpu_asking.clid(stable_diffusion, True, 16),
    "AdvDM step, 512": gpu_asking.attack(stable_diffusion, False, 4),
    "SD 1.5 full step, 512": gpu_training.step(stable_diffusion, "full", 4),
    "SDXL LoRA step, 1024": gpu_training.step(sdxl, "lora", 1),
    "FLUX LoRA step, 1024, bf16": gpu_training.flux_step(flux, False),
    "ASPL step, 512": gpu_asking.attack(stable_diffusion, True, 4),
    "FLUX LoRA step, 1024, NF4": gpu_training.flux_step(flux, True),
    "sampling, SD 1.5, 512": gpu_asking.sampling(stable_diffusion, 4),
    "CLiD, 512, bf16, compiled": gpu_asking.clid(stable_diffusion, True, 16, compiled=True),
    "CLiD, 512, fp32": gpu_asking.clid(stable_diffusion, False, 8),
    f"{LORA}, AdamW not fused": gpu_training.variant(stable_diffusion, LORA, 4, fused=False),
    f"{LORA}, channels_last": gpu_training.variant(stable_diffusion, LORA, 4, channels_last),
    f"{LORA}, compiled": gpu_training.variant(
        stable_diffusion, LORA, 4, least_s=90, compute={"compile_unet": True}
    ),
}


def run(bench: Bench, name: str, measure: Measure) -> Row:
    """One row, whatever happens."""
    row, started = Row(name, ceiling=bench.ceiling), time.monotonic()
    try:
        measure(bench, row)
        row.state = "measured"
    except Skipped as skipped:
        row.state, row.reason = "skipped", str(skipped)
    except Exception as error:  # out of memory, or what a card's driver does not know
        row.state, row.reason = "failed", why(error)
    row.took = time.monotonic() - started
    try:
        bench.clear()
    except RuntimeError as error:  # an illegal access, say: nothing works on this card any more
        row.state, row.reason = "failed", why(error)
        bench.lost = True
    return row


def earlier(folder: Path, bench: Bench) -> dict[str, Row]:
    """What an earlier run measured there, by name."""
    path = folder / "gpu.json"
    data = json.loads(path.read_text()) if path.exists() else {"measurements": []}
    found = {}
    for facts in data["measurements"]:
        if facts["state"] == "no time left":
            continue
        ways = {key: Way(**facts[key]) for key in ("ours", "plain") if facts[key]}
        row = Row(
            **{each.name: facts[each.name] for each in fields(Row) if each.name in facts} | ways
        )
        found[row.name] = row
        if row.ours:
            bench.kept[row.name] = row.ours
    return found


def anew(left: float) -> None:
    """This script again, in a process that the card knows nothing of."""
    options = ["--go_on", "--minutes", f"{max(left, 0.0) / 60:.2f}"]
    os.execv(sys.executable, [sys.executable, *sys.argv, *options])


def write(folder: Path, facts: dict, rows: list[Row]) -> None:
    """The JSON and the table, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    data = facts | {"measurements": [row.facts() for row in rows]}
    with atomic(folder / "gpu.json") as path:
        path.write_text(json.dumps(data, indent=1) + "\n")
    with atomic(folder / "gpu.md") as path:
        path.write_text(table(facts, rows))


def table(facts: dict, rows: list[Row]) -> str:
    """Markdown: a row for each measurement."""
    lines = [
        f"# {facts['device']}",
        "",
        f"torch {facts['torch']}, {facts['minutes']:g} minutes"
        f"{', tiny layouts: the numbers mean nothing' if facts['tiny'] else ''}; "
        f"bf16 matrix products reach {facts['ceiling_tflops']:.4g} TFLOP/s. "
        f"{facts.get('note', '')}".rstrip(),
        "",
        "| measurement | units a second | times the other way | other way | share of ceiling | "
        "peak MiB, ours | the other's | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row.ours:
            said = ": ".join(filter(None, [row.state, row.reason]))
            lines.append(f"| {row.name} |  |  |  |  |  |  | {said} |")
            continue
        other = [f"{row.ratio:.2f}" if row.ratio else "", row.against]
        share = f"{row.share:.1%}" if row.share else ""
        peaks = [f"{row.ours.peak_mib:.0f}", f"{row.plain.peak_mib:.0f}" if row.plain else ""]
        said = "; ".join(filter(None, [row.note, row.reason]))
        cells = [row.name, f"{1 / row.ours.seconds:.3g} {row.unit}s", *other, share, *peaks, said]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="Toy sizes, to try the script.")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--only", default="", help="Measurements whose name holds this.")
    parser.add_argument("--note", default="", help="What else the machine did, for the table.")
    parser.add_argument("--go_on", action="store_true", help="Keep the rows that are there.")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --tiny tries the script")
    device = torch.device(args.device)
    started = time.monotonic()
    bench = Bench(device, args.tiny, started + args.minutes * 60)
    # A quarter of the time is for building, warming up and counting, of two ways each.
    bench.slice_s = 0.3 if args.tiny else args.minutes * 60 * 0.3 / len(MEASUREMENTS)
    cuda = device.type == "cuda"
    bench.ceiling = ceiling(bench)
    facts = {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}",
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "minutes": args.minutes,
        "tiny": args.tiny,
        "ceiling_tflops": bench.ceiling,
        "note": args.note,
    }
    known = earlier(args.output, bench) if args.go_on else {}
    rows = [known.get(name, Row(name)) for name in MEASUREMENTS if args.only in name]
    write(args.output, facts, rows)
    for place, row in enumerate(rows):
        if row.name in known:
            continue
        if bench.left <= 0:
            break
        rows[place] = run(bench, row.name, MEASUREMENTS[row.name])
        write(args.output, facts | {"seconds": time.monotonic() - started}, rows)
        sys.stdout.write(f"{rows[place].took:6.1f} s  {row.name}: {rows[place].state}")
        sys.stdout.write(f" {rows[place].reason}\n")
        sys.stdout.flush()
        if bench.lost:
            anew(bench.left)
    sys.stdout.write((args.output / "gpu.md").read_text())


if __name__ == "__main__":
    main()
