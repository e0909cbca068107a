"""Faces cut out, restored and put back, with stand-ins: python -m pytest tests/purifiers"""

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_model import FakeBackbone
from torch import Tensor, nn

from shortcut_lightning.faces import Face, FaceDetector, InsightFace, SFace, YuNet
from shortcut_lightning.purifiers import FaceRestoration
from shortcut_lightning.purifiers.face_restoration import (
    TEMPLATE,
    alignment,
    feathered,
    inverse,
    warped,
)

SIDE = 32


class Turned(FaceDetector):
    """One face: the template turned by a right angle, at half its size, around (40, 24)."""

    def __init__(self, eyes: float = 0.5) -> None:
        self.eyes = eyes
        self.landmarks = placed(eyes)

    def faces(self, image: Tensor) -> list[Face]:
        return [Face((0.0, 0.0, 1.0, 1.0), self.landmarks, 0.9)]


class Blind(FaceDetector):
    """Finds nothing."""

    def faces(self, image: Tensor) -> list[Face]:
        return []


def placed(scale: float) -> Tensor:
    x, y = ((torch.tensor(TEMPLATE) - 0.5) * SIDE * scale).unbind(dim=1)
    return torch.stack([40 - y, 24 + x], dim=1)


def network(folder: Path, module: nn.Module) -> str:
    path = folder / "net.pt"
    torch.jit.save(torch.jit.script(module), path)
    return str(path)


class White(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.ones_like(image)


def purify(purifier: FaceRestoration, images: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    return purifier(images, FakeBackbone(), ["a photo"] * len(images), generator=chance)


def test_alignment_finds_turn_scale_and_shift() -> None:
    matrix = alignment(placed(0.5), SIDE)
    torch.testing.assert_close(matrix, torch.tensor([[0.0, -0.5, 48], [0.5, 0.0, 16]]))
    there_and_back = inverse(matrix) @ torch.cat([placed(0.5).T, torch.ones(1, 5)])
    torch.testing.assert_close(there_and_back.T, torch.tensor(TEMPLATE) * SIDE)


def test_warping_by_whole_pixels_moves_pixels() -> None:
    image = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    moved = warped(image, torch.tensor([[1.0, 0, 2], [0, 1, 1]]), (5, 6))
    torch.testing.assert_close(moved, image[:, 1:, 2:])
    assert warped(image, torch.tensor([[1.0, 0, 20], [0, 1, 0]]), (6, 8)).max() == 0


def test_a_restored_face_is_put_back_where_it_was(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 48, 80)
    white = network(tmp_path, White())
    out = purify(FaceRestoration(white, Turned(), side=SIDE, min_eye_distance=1), images)
    # The face is a square of 16 pixels around (40, 24), with soft edges; nothing else changes.
    assert (out[..., 20:28, 36:44] == 1).all()
    outside = torch.ones(48, 80, dtype=torch.bool)
    outside[15:33, 31:49] = False
    assert out[..., outside].max() == 0
    assert 0 < out[0, 0, 16, 40] < 1


def test_a_network_that_changes_nothing_changes_nothing(tmp_path: Path) -> None:
    ramp = torch.linspace(0.2, 0.8, 80).expand(1, 3, 48, 80)
    images = (ramp * 255).round() / 255
    same = network(tmp_path, nn.Identity())
    out = purify(FaceRestoration(same, Turned(), side=SIDE, min_eye_distance=1), images)
    assert (out - images).abs().max() * 255 <= 2  # of interpolation there and back


def test_small_and_missing_faces_are_left_and_told(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 48, 80)
    for detector in (Blind(), Turned(0.1)):
        with pytest.warns(UserWarning, match="no face in 2 of 2 images"):
            out = purify(FaceRestoration(network(tmp_path, White()), detector, side=SIDE), images)
        assert torch.equal(out, images)


def test_the_seam_is_soft_and_the_middle_whole() -> None:
    soft = feathered(40)[0]
    assert soft[20, 20] == 1
    assert soft[0].max() < 0.2
    assert torch.equal(soft, soft.T)


GREY = torch.full((3, 48, 48), 0.5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: YuNet("none.onnx").faces(GREY), r"No file at 'none\.onnx' for YuNet's network"),
        (lambda: SFace("none.onnx", Turned()).embedding(GREY), "SFace's network"),
        (lambda: InsightFace(root="/nowhere").network, "insightface"),
        (
            lambda: FaceRestoration("x", Blind(), side=0),
            r"FaceRestoration\.side is 0; it must be at least 1",
        ),
        (
            lambda: purify(FaceRestoration("codeformer.pth", Blind()), GREY[None]),
            r"No weights at 'codeformer\.pth'",
        ),
    ],
)
def test_what_is_missing_is_named(ask: Any, message: str) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match=message):
        ask()
