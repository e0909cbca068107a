"""Pictures with boxes on them, for people to check what a detector found."""

from collections.abc import Iterable, Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.report.pictures import to_pil

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
_COLUMNS, _MARGIN, _LINE = 6, 8, 14


def colours(labels: Iterable[str]) -> dict[str, str]:
    """One colour for each label, repeating after six."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(sorted(set(labels)))}


def outlined(
    image: Tensor, boxes: Iterable[ConceptBox], colour: Mapping[str, str], side: int = 160
) -> Image.Image:
    """(3, H, W) in [0, 1] with its boxes, `side` pixels at its longer side. A concept without a
    place is a dot in the corner."""
    picture = to_pil(image)
    scale = side / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = picture.resize(size, how)
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        if box.xyxy is None:
            pen.ellipse((4, 4, 14, 14), fill=colour[box.label])
            continue
        x0, x1 = (round(x * (size[0] - 1)) for x in box.xyxy[::2])
        y0, y1 = (round(y * (size[1] - 1)) for y in box.xyxy[1::2])
        pen.rectangle((x0, y0, x1, y1), outline=colour[box.label], width=2)
    return picture


def _said(found: Sequence[ConceptBox]) -> str:
    """How many there are; the score of a single one that has no place."""
    if len(found) == 1 and found[0].xyxy is None:
        return f"{found[0].score:.2f}"
    return str(len(found))


def contact_sheet(
    examples: Sequence[Example],
    boxes: Sequence[Sequence[ConceptBox]],
    most: int = 60,
    side: int = 160,
) -> Image.Image:
    """The first `most` images with their boxes and names, and what each colour means."""
    colour = colours(box.label for image in boxes for box in image)
    shown = list(zip(examples[:most], boxes, strict=False))
    columns = min(max(len(shown), 3), _COLUMNS)
    rows = -(-len(shown) // columns)
    step = side + _MARGIN
    head = _LINE * (len(colour) + 1) + _MARGIN
    canvas = Image.new(
        "RGB", (columns * step + _MARGIN, head + rows * (step + _LINE) + _MARGIN), "white"
    )
    pen = ImageDraw.Draw(canvas)
    with_box = sum(map(bool, boxes))
    pen.text((_MARGIN, 2), f"{with_box} of {len(boxes)} images with a concept", fill="black")
    for line, (label, shade) in enumerate(colour.items(), start=1):
        pen.text((_MARGIN, 2 + line * _LINE), label, fill=shade)
    for number, (example, found) in enumerate(shown):
        row, column = divmod(number, columns)
        left, top = _MARGIN + column * step, head + row * (step + _LINE)
        said = f"{example.name[-22:]}: {_said(found)}"
        pen.text((left, top), said, fill="#555555")
        canvas.paste(outlined(example.image, found, colour, side), (left, top + _LINE))
    return canvas
