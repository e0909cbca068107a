"""Restoration of the faces in a picture: found, aligned, restored, and put back in their place."""

import warnings
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.faces import FaceDetector
from shortcut_lightning.purifiers import restoration_file
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Count, NotNegative

# Where eyes, nose and corners of the mouth lie in an aligned picture (FFHQ's alignment, which face
# networks are trained on), as shares of its side.
TEMPLATE = (
    (0.37692, 0.46864),
    (0.62286, 0.46912),
    (0.50124, 0.61331),
    (0.39309, 0.72541),
    (0.61150, 0.72490),
)
FEATHER = 0.1  # of the side, over which a restored face fades into the picture


class FaceRestoration(Purifier):
    """CodeFormer, GFPGAN and their like as their own programs run them: every face is cut out
    upright, restored, and laid over the picture with soft edges; the rest stays. Published
    programs also cut along the outline that a parsing network draws; here a soft square does.

    Args:
        path: The network; `restoration_file.load` says which kinds there are.
        detector: Finds the faces.
        side: Side of an aligned face.
        value_range: What a TorchScript network takes and returns.
        min_eye_distance: Faces whose eyes are closer together, in pixels, stay as they are.
    """

    def __init__(
        self,
        path: str,
        detector: FaceDetector,
        side: Count = 512,
        value_range: restoration_file.Range = "0..1",
        min_eye_distance: NotNegative = 5.0,
    ) -> None:
        self.path = path
        self.detector = detector
        self.side = side
        self.value_range = value_range
        self.min_eye_distance = min_eye_distance

    @cached_property
    def network(self) -> nn.Module:
        """The network, loaded at first use."""
        return restoration_file.load(self.path, self.value_range)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        network, side = self.network.to(images.device), self.side
        soft = feathered(side).to(images)
        rows, without = [], 0
        for image in images:
            places = [
                alignment(face.landmarks.to(images), side)
                for face in self.detector.faces(image)
                if face.eye_distance >= self.min_eye_distance
            ]
            without += not places
            size = (image.shape[-2], image.shape[-1])
            for place in places:
                restored = network(warped(image, place, (side, side))[None])[0].clamp(0, 1)
                restored = functional.interpolate(restored[None], (side, side), mode="area")[0]
                back = inverse(place)
                share = warped(soft, back, size)
                image = image + share * (warped(restored, back, size) - image)
            rows.append(image)
        if without:
            warnings.warn(
                f"FaceRestoration found no face in {without} of {len(images)} images, which stay "
                "as they were.",
                stacklevel=2,
            )
        return torch.stack(rows)


def alignment(landmarks: Tensor, side: int) -> Tensor:
    """(5, 2) points in a picture -> (2, 3), from places of the aligned face to places of the
    picture: the turn, scale and shift that take the template nearest to the points."""
    template = torch.tensor(TEMPLATE).to(landmarks) * side
    x, y = template.unbind(dim=1)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.stack(
        [torch.stack([x, -y, one, none], dim=1), torch.stack([y, x, none, one], dim=1)], dim=1
    )
    a, b, right, down = torch.linalg.lstsq(
        rows.reshape(-1, 4).double(), landmarks.reshape(-1, 1).double()
    ).solution.flatten()
    return torch.stack([a, -b, right, b, a, down]).reshape(2, 3).to(landmarks)


def inverse(matrix: Tensor) -> Tensor:
    """Of a (2, 3) map."""
    turned = torch.linalg.inv(matrix[:, :2])
    return torch.cat([turned, -turned @ matrix[:, 2:]], dim=1)


def warped(image: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size): at each place what `matrix`, (2, 3), points to in the image, by
    bilinear interpolation; black outside. Places are in pixels, (0, 0) the first one's corner."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).to(image) @ matrix.T
    sides = torch.tensor([image.shape[-1], image.shape[-2]]).to(image)
    grid = places / sides * 2 - 1
    return functional.grid_sample(image[None], grid[None], align_corners=False)[0]


def feathered(side: int) -> Tensor:
    """(1, side, side): 1 inside, falling to 0 towards the edges."""
    place = (torch.arange(side) + 0.5) / side
    ramp = (torch.minimum(place, 1 - place) / FEATHER).clamp(max=1)
    return torch.minimum(ramp[:, None], ramp[None, :])[None]
