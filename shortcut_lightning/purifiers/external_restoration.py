"""Restoration of whole pictures by a network that the user brings."""

from functools import cached_property

import torch
from torch import Tensor, nn

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers import restoration_file
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.resampling import resized
from shortcut_lightning.ranges import CountOrNone


class ExternalRestoration(Purifier):
    """A restoration network in a file of your own, on whole pictures: Real-ESRGAN and its like, or
    a face network on portraits that are aligned already. `FaceRestoration` finds and aligns faces.

    Args:
        path: The file; `restoration_file.load` says which kinds there are.
        side: Images are brought to squares of this side first; 0 leaves their size. CodeFormer
            wants 512.
        value_range: What a TorchScript network takes and returns.
    """

    def __init__(
        self, path: str, side: CountOrNone = 0, value_range: restoration_file.Range = "0..1"
    ) -> None:
        self.path = path
        self.side = side
        self.value_range = value_range

    @cached_property
    def network(self) -> nn.Module:
        """The network, loaded at first use."""
        return restoration_file.load(self.path, self.value_range)

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        network = self.network.to(images.device)
        given = resized(images, (self.side, self.side)) if self.side else images
        # One at a time: scripted and recognised networks alike promise no more.
        restored = torch.cat([network(image[None]) for image in given])
        return resized(restored.clamp(0, 1), (images.shape[-2], images.shape[-1]))
