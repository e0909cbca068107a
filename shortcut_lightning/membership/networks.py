"""A ResNet-18 that tells the maps of members from those of hold-outs."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shortcut_lightning.membership.base import Rule

MapOptimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


def train_resnet(
    members: np.ndarray,
    holdouts: np.ndarray,
    seed: int,
    optimizer: MapOptimizer,
    epochs: int,
    batch_size: int,
) -> Rule:
    """Trains on rows (score, C, H, W, map ...) of both sets; the rule gives the logit of "member".

    Runs on the CPU in float32; maps are standardised with the training rows' mean and deviation.
    """
    maps = _maps(np.concatenate([members, holdouts]))
    labels = torch.cat([torch.ones(len(members)), torch.zeros(len(holdouts))])
    mean, std = maps.mean(), maps.std() + 1e-12
    maps = (maps - mean) / std
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        network = _resnet18(maps.shape[1])
        steps = optimizer(network.parameters())
        network.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(maps)).split(batch_size):
                if len(rows) < 2:  # batch normalisation needs two
                    continue
                logits = network(maps[rows]).logits[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, labels[rows])
                steps.zero_grad()
                loss.backward()
                steps.step()
    network.eval()

    def rule(features: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = ((_maps(features) - mean) / std).split(batch_size)
            return torch.cat([network(part).logits[:, 0] for part in parts]).double().numpy()

    return rule


def _maps(features: np.ndarray) -> Tensor:
    channels, height, width = (int(n) for n in features[0, 1:4])
    return torch.from_numpy(features[:, 4:]).float().view(-1, channels, height, width)


def _resnet18(channels: int) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=channels,
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=1,
        )
    )
