"""What noise looks like in a picture: statistics of differences and of the spectrum.

Steganalysis reads hidden messages off such numbers (SPAM, Pevny et al. 2010; rich models, Fridrich
and Kodovsky 2012). A protection is like them: faint, everywhere, and not of the camera.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

LEAST = 32  # pixels of a side: below it there is too little to count
TILE = 256  # pixels of a side of what is looked at in one piece
MOST_TILES = 9
_LEVELS = 3  # of the pyramid: whole, half and quarter size
_RINGS = 6  # of the spectrum, up to the finest frequency
_QUANTILES = (0.25, 0.5, 0.75, 0.95)
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def statistics(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1], no side under `LEAST` -> (N, F) float32, the same F for every size.

    A larger picture than `TILE` is looked at in squares spread over it, at most `MOST_TILES`, whose
    numbers are averaged.
    """
    parts = [_of_tile(tile) for tile in _tiles(images.float())]
    return torch.stack(parts).mean(0)


def _tiles(images: Tensor) -> Iterator[Tensor]:
    rows, columns = (_starts(length) for length in images.shape[-2:])
    for top in rows:
        for left in columns:
            yield images[..., top : top + TILE, left : left + TILE]


def _starts(length: int) -> list[int]:
    """At most three, evenly spread; on multiples of 8, where JPEG's blocks begin."""
    count = min(round(MOST_TILES**0.5), -(-length // TILE))
    if count == 1:
        return [0]
    return [round(i * (length - TILE) / (count - 1)) // 8 * 8 for i in range(count)]


def _of_tile(images: Tensor) -> Tensor:
    found: list[Tensor] = []
    channels = _opponent(images)
    for level in range(_LEVELS):
        if level:
            channels = functional.avg_pool2d(channels, 2)
        residuals = _second_difference(channels)
        found += _sizes(residuals)
        found += _shape(channels)
        found += _neighbours(residuals)
        found += _between_channels(residuals)
        found += _spectrum(channels[:, :2])
        found += _flat_places(channels[:, 0], residuals[:, 0])
        if level < 2:
            found += _patterns(residuals[:, :2])
        if level == 0:
            found += [_rhythm(residuals[:, 0], period) for period in (2, 4, 8)]
    return torch.cat([each.reshape(len(images), -1) for each in found], 1)


def _opponent(images: Tensor) -> Tensor:
    """Grey, red against green, yellow against blue, in /255."""
    red, green, blue = (images * 255).unbind(1)
    return torch.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)


def _second_difference(channels: Tensor) -> Tensor:
    """In both directions: blind to ramps and to edges along an axis."""
    across = channels[..., :-2] - 2 * channels[..., 1:-1] + channels[..., 2:]
    return (across[..., :-2, :] - 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 4


def _log(values: Tensor) -> Tensor:
    return (values + 0.1).log()  # a tenth of a level: rounding to 8 bits hides what is fainter


def _sizes(residuals: Tensor) -> list[Tensor]:
    points = torch.tensor(_QUANTILES, device=residuals.device)
    quantiles = residuals.abs().flatten(2).quantile(points, dim=2)  # (Q, N, C)
    return [_log(quantiles).permute(1, 0, 2)]


def _shape(channels: Tensor) -> list[Tensor]:
    """Size of the first differences and how heavy their tails are."""
    found = []
    for step in (channels.diff(dim=-1), channels.diff(dim=-2)):
        size = step.abs().mean((2, 3))
        found += [_log(size), (step.square().mean((2, 3)) + 0.1).log() - 2 * _log(size)]
    return found


def _neighbours(residuals: Tensor) -> list[Tensor]:
    return [_correlation(*_shifted(residuals, down, right)) for down, right in _LAGS]


def _shifted(images: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    height, width = images.shape[-2:]
    return images[..., : height - down, : width - right], images[..., down:, right:]


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of two (N, C, H, W) over their places; squeezed, so that strong edges do not decide alone."""
    scale = first.abs().flatten(2).mean(2)[..., None, None] + 0.1
    one, other = (first / scale).tanh(), (second / scale).tanh()
    norm = (one.square().mean((2, 3)) * other.square().mean((2, 3)) + 1e-6).sqrt()
    return (one * other).mean((2, 3)) / norm


def _between_channels(residuals: Tensor) -> list[Tensor]:
    pairs = ((0, 1), (0, 2), (1, 2))
    found = [_correlation(residuals[:, [a]], residuals[:, [b]]).abs() for a, b in pairs]
    sizes = _log(residuals.abs().mean((2, 3)))
    return [*found, sizes[:, 1] - sizes[:, 0], sizes[:, 2] - sizes[:, 0]]


def _spectrum(channels: Tensor) -> list[Tensor]:
    """Log power in rings, relative to their mean."""
    height, width = channels.shape[-2:]
    window = torch.hann_window(height, device=channels.device)[:, None] * torch.hann_window(
        width, device=channels.device
    )
    flat = channels - channels.mean((2, 3), keepdim=True)
    power = torch.fft.rfft2(flat * window).abs().square() / window.square().sum()
    down = torch.fft.fftfreq(height, device=channels.device)[:, None]
    right = torch.fft.rfftfreq(width, device=channels.device)
    ring = ((down.square() + right.square()).sqrt() * 2 * _RINGS).long().clamp(max=_RINGS)
    rings = [_log(power[..., ring == number].mean(-1)) for number in range(1, _RINGS + 1)]
    stacked = torch.stack(rings, -1)
    return [stacked - stacked.mean(-1, keepdim=True)]


def _patterns(residuals: Tensor) -> list[Tensor]:
    """Shares of the 27 patterns of three neighbours in a line, each up, down or near nothing."""
    limit = residuals.abs().flatten(2).median(2).values[..., None, None] * 0.5 + 0.05
    signs = (residuals > limit).long() - (residuals < -limit).long() + 1
    across = 9 * signs[..., :-2] + 3 * signs[..., 1:-1] + signs[..., 2:]
    down = 9 * signs[..., :-2, :] + 3 * signs[..., 1:-1, :] + signs[..., 2:, :]
    both = torch.cat([across.flatten(2), down.flatten(2)], 2)  # (N, C, K)
    counts = torch.zeros(*both.shape[:2], 27, device=residuals.device)
    counts.scatter_add_(2, both, torch.ones_like(both, dtype=counts.dtype))
    return [(counts / both.shape[2] + 1e-3).log()]


def _flat_places(grey: Tensor, residuals: Tensor) -> list[Tensor]:
    """How much there is where a picture is smoothest: cameras and painters leave little."""
    side = 4
    square = functional.avg_pool2d(residuals.square()[:, None], side).flatten(1)
    mean = functional.avg_pool2d(grey[:, None, 1:-1, 1:-1], side)
    spread = functional.avg_pool2d(grey[:, None, 1:-1, 1:-1].square(), side) - mean.square()
    points = torch.tensor((0.1, 0.3, 0.5), device=grey.device)
    return [
        _log(square.sqrt().quantile(points, dim=1)).T,
        _log(spread.clamp(min=0).sqrt().flatten(1).quantile(points, dim=1)).T,
    ]


def _rhythm(residuals: Tensor, period: int) -> Tensor:
    """How unevenly they are spread over a grid's phases: JPEG's blocks, an encoder's strides."""
    height, width = (length // period * period for length in residuals.shape[-2:])
    size = residuals[:, :height, :width].abs()
    folded = size.reshape(len(size), height // period, period, width // period, period)
    by_phase = folded.mean((1, 3)).flatten(1)
    return _log(by_phase.std(1)) - _log(by_phase.mean(1))
