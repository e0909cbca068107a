"""Personalised text-to-image diffusion with PyTorch Lightning: protect, purify, train, audit."""

__version__ = "0.1.0"
