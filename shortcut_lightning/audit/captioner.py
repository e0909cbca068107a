"""Captions by an image-to-text model, where those of an audit's images are unknown.

Conditional scores then measure how well a described image fits, with the same describer for
members, hold-outs and shadow; CLiD loses part of its lead but works (arXiv 2405.14800, table 6).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shortcut_lightning import weights
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.ranges import Count, Ranged


class Captioner(Ranged):
    """Describes images with a model of transformers (BLIP, GIT, ViT-GPT2, ...).

    Args:
        pretrained_model_name_or_path: A folder or hub id with weights, processor and tokenizer;
            for example Salesforce/blip-image-captioning-base.
        max_new_tokens: Longest description.
        batch_size: Images described at a time.
    """

    def __init__(
        self, pretrained_model_name_or_path: str, max_new_tokens: Count = 30, batch_size: Count = 16
    ) -> None:
        self.pretrained_model_name_or_path = pretrained_model_name_or_path
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def describe(self, pictures: Sequence[Picture], file: Path | None = None) -> list[Picture]:
        """The same images with new captions, decoded greedily.

        Captions in `file`, one JSON row each, are taken from there, and new ones are added as they
        come; so a killed audit describes no image twice.

        Raises ValueError when the model cannot be had.
        """
        mark = f"{self.pretrained_model_name_or_path} {self.max_new_tokens}"
        rows = _rows(file) if file and file.exists() else []
        known = {row["key"]: row["caption"] for row in rows if row["model"] == mark}
        names = {f"{each.key:016x}": each for each in pictures}
        missing = [(name, each) for name, each in names.items() if name not in known]
        model = self._load() if missing else None
        for start in range(0, len(missing), self.batch_size):
            part = missing[start : start + self.batch_size]
            texts = self._captions(model, [each for _, each in part])
            for (name, each), text in zip(part, texts, strict=True):
                known[name] = text
                if file:
                    row = {"key": name, "file_name": each.name, "caption": text, "model": mark}
                    with file.open("a", encoding="utf-8") as rows_file:
                        rows_file.write(json.dumps(row) + "\n")
        return [each.saying(known[f"{each.key:016x}"]) for each in pictures]

    def _load(self) -> tuple[Any, Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        name = self.pretrained_model_name_or_path
        try:
            with weights.one_line():
                return (
                    weights.load(AutoModelForImageTextToText, name, "audit.captioner").eval(),
                    AutoImageProcessor.from_pretrained(name),
                    AutoTokenizer.from_pretrained(name),
                )
        except weights.WeightsError:
            raise
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The captioner '{name}' cannot be loaded: {' '.join(str(error).split())[:160]} "
                "Give an image-to-text model of transformers as a folder or a hub id that can be "
                "reached (audit.captioner), or one sentence for all images (audit.caption)."
            ) from error

    @torch.no_grad()
    def _captions(self, model: Any, pictures: Sequence[Picture]) -> list[str]:
        network, processor, tokenizer = model
        images = [(each.pixels() * 255).round().to(torch.uint8) for each in pictures]
        inputs = processor(images=images, return_tensors="pt")
        tokens = network.generate(
            pixel_values=inputs.pixel_values, max_new_tokens=self.max_new_tokens, do_sample=False
        )
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        # An empty caption would be the null caption; CLiD could not tell the two apart.
        return [" ".join(text.split()) or "a photo" for text in texts]


def _rows(file: Path) -> list[dict[str, str]]:
    """The file's rows; a last one that was cut off by a kill is taken away."""
    text = file.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        write_text(file, whole)
    return [json.loads(line) for line in whole.splitlines()]
