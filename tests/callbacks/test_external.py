"""Scores of networks that users bring, with stand-ins: python -m pytest tests/callbacks"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from small_run import Colours
from torch import Tensor
from torchmetrics.image import lpip

from shortcut_lightning.batch import Example
from shortcut_lightning.callbacks import (
    ClipIqa,
    FaceIdentity,
    PaperQuality,
    PyiqaQuality,
    StageFidelity,
)
from shortcut_lightning.callbacks.samples import Samples
from shortcut_lightning.faces import FaceEncoder


def samples(images: Tensor) -> Samples:
    n = len(images)
    return Samples("tuned", images, ["a"] * n, [""] * n, [0] * n, [0] * n, torch.device("cpu"))


def shades(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


class RedFaces(FaceEncoder):
    """Sees a face wherever there is light: its direction is how light it is."""

    name = "red"
    network = "there"

    def embedding(self, image: Tensor) -> Tensor | None:
        light = image.mean()
        return torch.stack([light, 1 - light]) if light > 0 else None


def test_faces_are_matched_where_found_and_counted_where_not() -> None:
    data: Any = SimpleNamespace(references=[Example(shades(1.0)[0], "", "a")])
    got = FaceIdentity(RedFaces()).measure(samples(shades(1.0, 0.0, 0.5, 0.0)), data)
    assert got["face_missing_red"].value == 0.5
    assert got["face_match_red"].value == pytest.approx((1 + 0.5**0.5) / 2)
    assert got["face_match_red"].n == 2


def test_without_any_face_there_is_no_match_and_a_word_about_it() -> None:
    data: Any = SimpleNamespace(references=[Example(shades(1.0)[0], "", "a")])
    metric = FaceIdentity(RedFaces())
    assert set(metric.measure(samples(shades(0.0, 0.0)), data)) == {"face_missing_red"}
    assert metric.warnings() == ["red finds no face in what the model draws."]


class GoodBad(Colours):
    """Light pictures are good, dark ones bad, with a cosine a hundredth apart."""

    name = "goodbad"

    def images(self, images: Tensor) -> Tensor:
        light = images.mean(dim=(1, 2, 3))
        return torch.stack([light, 1 - light], dim=1)

    def texts(self, prompts: Any, device: torch.device) -> Tensor:
        return torch.tensor([[1.0, 0.0] if "ood" in prompt else [0.0, 1.0] for prompt in prompts])


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyiqa whose LIQE is 1 for black and 5 for white."""
    stand_in = ModuleType("pyiqa")

    class Metric(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            assert image.shape[0] == 1
            return 1 + 4 * image.mean().reshape(1, 1)

    stand_in.create_metric = lambda name: {"liqe": Metric}[name]()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", stand_in)


def test_scores_by_name(pyiqa: None) -> None:
    images = samples(shades(0.0, 0.75))
    assert PyiqaQuality("liqe").measure(images, None)["iqa_liqe"].value == pytest.approx(2.5)
    share = ClipIqa(GoodBad()).measure(images, None)["clip_iqa_goodbad"].value
    assert share == pytest.approx(0.5, abs=1e-3)  # one all bad, one all good
    # Q: LIQE of 1 and 4 become -1 and 0.5; CLIP_IQAC is -1 and 1.
    q = PaperQuality(GoodBad()).measure(images, None)["q_paper"].value
    assert q == pytest.approx(((-1 - 1) / 2 + (0.5 + 1) / 2) / 2, abs=1e-3)


def test_a_name_that_pyiqa_lacks_is_told(pyiqa: None) -> None:
    with pytest.raises(ValueError, match="pyiqa cannot make the quality score 'beauty'"):
        PyiqaQuality("beauty").load()


def test_without_pyiqa_its_licence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ValueError, match="PolyForm Noncommercial"):
        PyiqaQuality().load()


def test_lpips_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    class Apart(torch.nn.Module):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return (one - other).abs().mean()

    name = "LearnedPerceptualImagePatchSimilarity"
    monkeypatch.setattr(lpip, name, Apart)
    metric = StageFidelity(lpips="vgg")
    metric.load()
    given = [Example(shades(0.5)[0], "", "a")]
    data: Any = SimpleNamespace(
        given=given, perturbed=[given[0]._replace(image=shades(0.75)[0])], purifiers=()
    )
    got = metric.measure(samples(shades(0.5)), data)
    assert got["protect_lpips_vgg"].value == pytest.approx(0.25)

    def broken(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("no torchvision")

    monkeypatch.setattr(lpip, name, broken)
    with pytest.raises(ValueError, match=r"StageFidelity\.lpips 'vgg' needs torchvision"):
        metric.load()
