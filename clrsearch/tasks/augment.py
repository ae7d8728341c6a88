"""Random augmentations of an image batch, drawn per image and computed at once on its device.

Images are (N, C, H, W) of any dtype. Random numbers come from torch's global generator of their
device, which the run has seeded.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop(images: Tensor, padding: int) -> Tensor:
    """Each image shifted by up to ``padding`` pixels in both directions, and filled with black.

    This equals a crop of the original size at a random position of the padded image.
    """
    count, channels, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), device=device)
    rows = top + torch.arange(height, device=device)  # (N, H)
    columns = left + torch.arange(width, device=device)  # (N, W)
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def flip(images: Tensor) -> Tensor:
    """Each image mirrored horizontally with probability 1/2."""
    mirrored = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, side: int, fill: Tensor) -> Tensor:
    """Each image with a square of ``side`` pixels replaced by ``fill``, a value per channel (C,).

    Its centre is any pixel, so part of the square may lie outside the image. T. DeVries and G. W.
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    arXiv:1708.04552.
    """
    count, _, height, width = images.shape
    device = images.device
    first_row = torch.randint(0, height, (count, 1), device=device) - side // 2
    first_column = torch.randint(0, width, (count, 1), device=device) - side // 2
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    in_rows = (first_row <= rows) & (rows < first_row + side)  # (N, H)
    in_columns = (first_column <= columns) & (columns < first_column + side)  # (N, W)
    cut = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(cut, fill.to(images)[None, :, None, None], images)
