"""The embedded model family: a procedural world, small networks trained on it, and their weights.

Importing this package loads nothing heavy; `WEIGHTS` is a diffusers folder (text-to-image) with the
metric networks in folders beside it. See `weights/README.md` for the model card.
"""

from pathlib import Path

#: Folder of the shipped weights: `StableDiffusionPipeline.from_pretrained(WEIGHTS)` loads it.
WEIGHTS: Path = Path(__file__).parent / "weights"

#: The other family, of another kind: a rectified flow with a transformer (`flow_family.py`).
FLOW_WEIGHTS: Path = Path(__file__).parent / "flow_weights"

#: Models that come with the package, by the names that stand for them.
BUILT_IN = {"pocket": WEIGHTS, "pocket-flow": FLOW_WEIGHTS}

#: Where a training of the family leaves its weights: the shipped ones are replaced only by name.
TRAINED = "runs/pocket/weights"
