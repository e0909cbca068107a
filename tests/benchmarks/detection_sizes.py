"""How large a concept has to be in a photograph of which size to be found, at its own size and at
the side it is learned with.

    python tests/benchmarks/detection_sizes.py [--pictures 6] [--photographs FOLDER]

Codes and lines of text are drawn at random places on clutter (or on the middle of photographs of a
folder, which also gives the false alarms); a hit overlaps the drawn box by 0.4. The rows go to
tests/benchmarks/results/detection_sizes.csv.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from shortcut_lightning.concepts import Detector, QRCodeDetector, TextDetector
from shortcut_lightning.concepts.generators import ConceptGenerator, QRCode, Text
from shortcut_lightning.concepts.geometry import overlap
from shortcut_lightning.files.images import load_image, resize_shorter_side
from shortcut_lightning.pocket.world import generator

SIDES = (512, 1024, 2048, 4096)  # of the photograph
LEARNED = 512
HEAD = ["concept", "photograph", "concept over photograph", "looked at", "hits", "pictures"]
RESULTS = Path(__file__).parent / "results" / "detection_sizes.csv"


def background(number: int, side: int, photographs: list[Path]) -> Tensor:
    """(3, side, side): the middle of a photograph, or clutter."""
    if photographs:
        image = resize_shorter_side(load_image(photographs[number % len(photographs)]), side)
        top, left = ((length - side) // 2 for length in image.shape[-2:])
        return image[:, top : top + side, left : left + side]
    noise = torch.from_numpy(generator(77, number).random((1, 3, 9, 9))).float()
    return functional.interpolate(noise, (side, side), mode="bicubic").clamp(0, 1)[0]


def found(detector: Detector, image: Tensor, boxes: list, side: int) -> bool:
    seen = detector.detect(resize_shorter_side(image, side)[None])[0]
    return any(overlap(a.xyxy, b.xyxy) >= 0.4 for a in seen for b in boxes if a.xyxy and b.xyxy)


def cases() -> Iterator[tuple[str, float, ConceptGenerator, Detector]]:
    for share in (0.05, 0.1, 0.2, 0.4):
        yield "code", share, QRCode(edge=(share, share), versions=(1, 2)), QRCodeDetector()
    for share in (0.01, 0.02, 0.04, 0.08):
        yield "text", share, Text(size=(share, share), lines=(1, 1), slant=0.0), TextDetector()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--photographs", type=Path)
    given = parser.parse_args()
    folder = given.photographs
    photographs = sorted(folder.rglob("*.jpg")) if folder else []
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        for side in SIDES:
            for name, share, drawn, detector in cases():
                hits = {"own size": 0, "learned": 0}
                for number in range(given.pictures):
                    made = drawn(background(number, side, photographs), 0, number)
                    hits["own size"] += found(detector, made.image, made.boxes, side)
                    hits["learned"] += found(detector, made.image, made.boxes, LEARNED)
                for looked, count in hits.items():
                    writer.writerow([name, side, share, looked, count, given.pictures])
                    file.flush()
            for name, detector in (("code", QRCodeDetector()), ("text", TextDetector())):
                alarms = sum(
                    bool(detector.detect(background(n, side, photographs)[None])[0])
                    for n in range(given.pictures)
                )
                writer.writerow(
                    [f"{name}, nothing drawn", side, 0, "own size", alarms, given.pictures]
                )
            sys.stdout.write(f"{side} done\n")


if __name__ == "__main__":
    main()
