"""The report's section about the stages: rows of photographs, columns of what was done to them."""

from collections.abc import Mapping, Sequence

from shortcut_lightning.batch import ConceptBox, Example
from shortcut_lightning.report.axis import number
from shortcut_lightning.report.boxes import colours, outlined
from shortcut_lightning.report.concepts import as_tensor
from shortcut_lightning.report.page import Section, fill
from shortcut_lightning.report.pictures import data_uri

MOST = 8  # photographs shown
_SIDE = 128  # pixels of a shown photograph
_READ = {"linf_255": "L∞ in /255", "psnr": "PSNR in dB", "ssim": "SSIM"}
_SECONDS = {"perturbed": "perturb", "purified": "purify", "detected": "detect"}


def section(
    stages: Mapping[str, Sequence[Example]],
    boxes: Sequence[Sequence[ConceptBox]],
    numbers: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
) -> Section:
    """Stage -> its pictures in the order of the photographs; boxes of the last one; stage -> its
    numbers against the first; seconds by the data module's names of stages."""
    colour = colours(box.label for image in boxes for box in image)
    names = [*stages, "detected"] if any(boxes) else list(stages)
    rows = []
    for index, example in enumerate(next(iter(stages.values()))[:MOST]):
        uris = [data_uri(images[index].image, _SIDE) for images in stages.values()]
        if "detected" in names:
            last = list(stages.values())[-1][index].image
            uris.append(data_uri(as_tensor(outlined(last, boxes[index], colour, _SIDE))))
        rows.append((example.name, uris))
    table = [
        (
            name,
            [number(numbers[name][key]) if name in numbers else "" for key in _READ],
            f"{seconds[_SECONDS[name]]:.1f}" if _SECONDS.get(name) in seconds else "",
        )
        for name in names
    ]
    found = f"; a concept was found in {sum(map(bool, boxes))} of {len(boxes)}" if boxes else ""
    lead = f"Each photograph after each stage{found}. Numbers are means against what was given."
    heads = list(_READ.values())
    html = fill("stages.html", names=names, rows=rows, table=table, heads=heads, side=_SIDE)
    return Section("Stages", html, lead)
