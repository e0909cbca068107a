"""The DreamBooth objective (arXiv 2208.12242, eq. 2) on one denoising step."""

import torch
from torch import Tensor, nn

from shortcut_lightning.ranges import NotNegative, Ranged


class DreamBoothLoss(Ranged, nn.Module):
    """Mean squared denoising error on instance images plus a weighted one on class images."""

    def __init__(
        self,
        prior_loss_weight: NotNegative = 1.0,
        snr_gamma: NotNegative = 0.0,
        snr_offset: NotNegative = 0.0,
    ) -> None:
        """`snr_gamma` 0 weighs all timesteps alike; Min-SNR's value is 5 (arXiv 2303.09556).
        `snr_offset` is what its divisor has beside the SNR: 0 for noise, 1 for velocities."""
        super().__init__()
        self.snr_offset = snr_offset
        self.prior_loss_weight = prior_loss_weight
        self.snr_gamma = snr_gamma

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        snr: Tensor,
        is_prior: Tensor,
        loss_weights: Tensor | None = None,
        step_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """(B, C, h, w) twice, (B,) twice, (B, 1, h, w), (B,) -> scalars "loss", "loss_instance"
        and, with class images in the batch, "loss_prior"."""
        errors = (prediction.float() - target.float()) ** 2
        if loss_weights is not None:
            errors = errors * loss_weights
        errors = errors.mean(dim=(1, 2, 3))
        if self.snr_gamma > 0:
            errors = errors * self.snr_weights(snr)
        if step_weights is not None:
            errors = errors * step_weights
        instance = errors[~is_prior].mean()
        if not is_prior.any():
            return {"loss": instance, "loss_instance": instance}
        prior = errors[is_prior].mean()
        return {
            "loss": instance + self.prior_loss_weight * prior,
            "loss_instance": instance,
            "loss_prior": prior,
        }

    def snr_weights(self, snr: Tensor) -> Tensor:
        """(B,) -> (B,) Min-SNR weights; for velocities divided by SNR + 1 instead of SNR."""
        return torch.clamp(snr, max=self.snr_gamma) / (snr + self.snr_offset)
