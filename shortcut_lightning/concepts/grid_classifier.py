"""A small network that knows concepts by having seen them pasted: for pictures too small to decode.

It is trained on generators with known boxes (`configs/concepts/`), so it counts what looks like the
concept, readable or not, and is independent of the detectors that decode.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from shortcut_lightning import weights
from shortcut_lightning.batch import ConceptBox
from shortcut_lightning.concepts.base import Detector
from shortcut_lightning.concepts.geometry import Grid
from shortcut_lightning.files.atomic import atomic, write_text
from shortcut_lightning.pocket import WEIGHTS
from shortcut_lightning.ranges import Share

CELLS = 8  # along a side of the map
POCKET_CONCEPTS = WEIGHTS / "concepts"


class GridNetwork(nn.Module):
    """Images to one logit for each label, and one for each label and cell of an 8 x 8 map."""

    def __init__(self, labels: Sequence[str], side: int = 64, width: int = 24) -> None:
        """`side` is what images are resized to; a multiple of 8 from 32 up."""
        super().__init__()
        self.config = {"labels": list(labels), "side": side, "width": width}
        self.labels = list(labels)
        self.side = side
        layers: list[nn.Module] = []
        before = 3
        for level in range(3):
            after = width * 2**level
            layers += [
                nn.Conv2d(before, after, 3, 2, 1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, 1, 1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
            before = after
        self.trunk = nn.Sequential(*layers)
        self.cells = nn.Conv2d(before, len(labels), 3, 1, 1)
        self.image = nn.Linear(2 * before, len(labels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] -> (N, L) and (N, L, 8, 8) logits."""
        if images.shape[-2:] != (self.side, self.side):
            images = functional.interpolate(
                images, (self.side, self.side), mode="bilinear", antialias=True
            )
        features = self.trunk(images * 2 - 1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return self.image(pooled), functional.adaptive_avg_pool2d(self.cells(features), CELLS)

    def save(self, folder: Path) -> None:
        """Writes `config.json` and `model.safetensors` (fp16)."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps(self.config, indent=2) + "\n")
        weights = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        with atomic(folder / "model.safetensors") as half:
            save_file(weights, half)


class GridClassifier(Detector):
    """A trained `GridNetwork`. A concept's box goes around the cells that show it.

    Args:
        path: Its folder; `pocket` is the one that comes with the package, for QR codes, watermarks
            and text in the pocket's 64 px pictures.
        threshold: Least probability that the image shows the concept.
        labels: Concepts to look for; empty for all it knows.
    """

    any_size = False  # it knows pictures of the size that it was trained on

    def __init__(
        self, path: str = "pocket", threshold: Share = 0.5, labels: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.threshold = threshold
        self.labels = labels

    @cached_property
    def network(self) -> GridNetwork:
        """The network, loaded at first use."""
        folder = POCKET_CONCEPTS if self.path == "pocket" else Path(self.path).expanduser()
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"No trained concept classifier in '{self.path}' (detector.path): expected "
                "config.json and model.safetensors, as configs/concepts/classifier.yaml trains."
            )
        network = weights.build(GridNetwork, folder, "detector.path")
        unknown = sorted(set(self.labels) - set(network.labels))
        if unknown:
            raise ValueError(
                f"detector.labels names {', '.join(unknown)}; '{self.path}' knows: "
                f"{', '.join(network.labels)}."
            )
        return network.eval().requires_grad_(False)

    @torch.no_grad()
    def run(self, images: Tensor, names: Sequence[str] = ()) -> list[list[ConceptBox]]:
        """See `Detector`."""
        found: list[list[ConceptBox]] = [[] for _ in images]
        network = self.network.to(images.device)
        if len(images) == 0:
            return found
        present, cells = (logits.sigmoid().cpu() for logits in network(images.float()))
        for image, number in (present >= self.threshold).nonzero().tolist():
            label = network.labels[number]
            if label in self.labels or not self.labels:
                score = float(present[image, number])
                found[image].append(ConceptBox(label, score, _around(cells[image, number])))
        return found


def cell_targets(boxes: Sequence[ConceptBox], labels: Sequence[str]) -> Tensor:
    """(L, 8, 8) float32: the part of each cell that a box of the label covers."""
    cells = torch.zeros(len(labels), CELLS**2)
    for label, bins in Grid(CELLS).by_label(boxes).items():
        for bin, part in bins.items():
            cells[list(labels).index(label), bin] = part
    return cells.view(-1, CELLS, CELLS)


def _around(cells: Tensor) -> tuple[float, float, float, float] | None:
    """The box around the cells of probability one half or more, in [0, 1]."""
    rows, columns = (cells >= 0.5).nonzero(as_tuple=True)
    if len(rows) == 0:
        return None
    return (
        int(columns.min()) / CELLS,
        int(rows.min()) / CELLS,
        (int(columns.max()) + 1) / CELLS,
        (int(rows.max()) + 1) / CELLS,
    )
