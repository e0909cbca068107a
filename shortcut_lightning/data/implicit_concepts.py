"""Sets of images with a concept nobody asked for, and with everything known about it.

Any folder of pictures, or the pocket's world, becomes a training set of which a share shows the
concept. From one seed, without a network:

    train/       the pictures to learn from, a share of them with the concept; metadata.jsonl
    clean/       the same pictures without it, under the same names
    reference/   held-out clean pictures, for distances
    boxes.jsonl  where the concept is in train/, as `PrecomputedBoxes` reads it
    prompts.txt  captions of the held-out pictures, for sampling
    recipe.json  what made it

    python -m shortcut_lightning.data.implicit_concepts sets/qr configs/concepts/qr.yaml
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from shortcut_lightning import presets
from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.concepts.generators import ConceptGenerator
from shortcut_lightning.concepts.pixels import to_tensor
from shortcut_lightning.data.loading import preparation
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.files.cache import describe
from shortcut_lightning.files.contents import METADATA
from shortcut_lightning.files.folders import POCKET, is_pocket, list_images, read_folder
from shortcut_lightning.files.images import load_images, resize_shorter_side, save_image
from shortcut_lightning.files.names import shown
from shortcut_lightning.prompts import Prompts


def write_implicit_concepts(
    output: str,
    concept: ConceptGenerator,
    source: str = "pocket:0",
    count: int = 200,
    references: int = 200,
    resolution: int = 64,
    seed: int = 0,
    prompt: str = "",
) -> None:
    """Writes a set as described above.

    Args:
        output: Folder to fill; it must be empty or not exist.
        concept: What is pasted; its `share` says how often.
        source: A folder of pictures, or `pocket:<seed>` for people of the pocket's world, each
            picture another one. A folder's captions are taken where it has them.
        count: Pictures to learn from; 0 for all of a folder but the references.
        references: Pictures held out, taken from the end of a folder.
        resolution: Side in pixels; pictures are resized and cropped in the middle.
        seed: Fixes where and how the concept is drawn, and in which pictures.
        prompt: Caption of pictures of a folder without captions; of the pocket's world, what to
            say instead of everything, such as "a photo of a person {place}".

    Raises ValueError for a folder in use, too few pictures, two of one name, or missing captions.
    """
    folder = Path(output).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty; give a new folder for the set (output).")
    wanted = count + references if count else 0
    examples = pictures_of(source, wanted, resolution, prompt)
    count = count or len(examples) - references
    if not 0 < count <= len(examples) - references:
        raise ValueError(
            f"{source} has {len(examples)} pictures; count {count} and references {references} "
            "do not fit."
        )
    name, copies = Counter(example.name for example in examples).most_common(1)[0]
    if copies > 1:
        raise ValueError(
            f"{copies} pictures of {source} differ in their suffix alone and would all be {name}; "
            "rename them (source)."
        )
    train, held_out = examples[:count], examples[count : count + references]
    for part in ("train", "clean", "reference"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows, boxes = [], {}
    for index, example in enumerate(train):
        save_image(example.image, folder / "clean" / example.name)
        shown, found = example.image, list[ConceptBox]()
        if concept.chosen(seed, index):
            shown, found = concept(example.image, seed, index)
        save_image(shown, folder / "train" / example.name)
        rows.append({"file_name": example.name, "text": example.prompt})
        boxes[example.name] = found
    for example in held_out:
        save_image(example.image, folder / "reference" / example.name)
    write_rows(folder / "train" / "metadata.jsonl", rows)
    write_rows(folder / "clean" / "metadata.jsonl", rows)
    captions = [{"file_name": e.name, "text": e.prompt} for e in held_out]
    write_rows(folder / "reference" / "metadata.jsonl", captions)
    write_boxes(folder / "boxes.jsonl", boxes)
    said = {example.prompt for example in held_out}
    prompts = sorted(said - {example.prompt for example in train} or said)
    write_text(folder / "prompts.txt", "".join(f"{text}\n" for text in prompts))
    recipe = {
        "concept": describe(concept),
        "source": source,
        "resolution": resolution,
        "seed": seed,
        "pictures": len(train),
        "with the concept": sum(bool(found) for found in boxes.values()),
    }
    write_text(folder / "recipe.json", json.dumps(recipe, indent=2) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """One JSON object a line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text)


def write_boxes(path: Path, boxes: dict[str, list[ConceptBox]]) -> None:
    """Rows of `file_name` and `boxes`, six decimals; images without a box have a row too."""
    rows: list[dict[str, object]] = [
        {
            "file_name": name,
            "boxes": [
                {
                    "label": box.label,
                    "score": round(box.score, 6),
                    "xyxy": box.xyxy and [round(value, 6) for value in box.xyxy],
                }
                for box in found
            ],
        }
        for name, found in boxes.items()
    ]
    write_rows(path, rows)


def pictures_of(source: str, count: int, side: int, prompt: str = "") -> list[Example]:
    """Square pictures of a folder (all of them) or of `pocket:<seed>` (`count` of them), with their
    captions, or `prompt` for a folder that has none and, if given, for the pocket."""
    if is_pocket(source):
        return list(_world(source, count, side, prompt))
    folder = Path(source).expanduser()
    paths = list_images(folder, "source")
    texts = [""] * len(paths)
    beside = all(path.with_suffix(".txt").exists() for path in paths)
    if not prompt or beside or (folder / METADATA).exists():
        texts = [entry.text for entry in read_folder(folder, "source", captions=True)]
    words = Prompts(prompt)
    images = load_images(paths, preparation(side, crop=True))
    return [
        Example(image, words.caption(text), f"{shown(path.stem)}.png")
        for image, text, path in zip(images, texts, paths, strict=True)
    ]


def _world(source: str, count: int, side: int, prompt: str) -> Iterator[Example]:
    from shortcut_lightning.pocket import world
    from shortcut_lightning.pocket.captions import PLACES

    number = source.removeprefix(POCKET)
    if not number.isdecimal():
        raise ValueError(f"source is {source!r}; the pocket's world is written pocket:<seed>.")
    if count < 1:
        raise ValueError(f"count is {count}; give the number of pictures of {source} to draw.")
    for index in range(count):
        drawn = world.draw(int(number), index, quality="clean")
        image = resize_shorter_side(to_tensor(np.asarray(drawn.image)), side)
        text = prompt.replace("{place}", PLACES[drawn.scene.background]) or drawn.caption
        yield Example(image, text, f"{index:05d}.png")


if __name__ == "__main__":
    words = [os.fspath(presets.find(word, "contamination") or word) for word in sys.argv[1:]]
    auto_cli(write_implicit_concepts, args=words)
