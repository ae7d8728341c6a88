"""Augmentation of a batch against torchvision's functions, image by image."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional

from clrsearch.tasks.augment import crop, cutout, flip


@pytest.fixture(params=[torch.uint8, torch.float32])
def images(request):
    """Sixty-four images of 3 x 8 x 10 pixels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 255, (64, 3, 8, 10), generator=generator).to(request.param)


def test_crop_is_a_window_of_each_padded_image(images) -> None:
    torch.manual_seed(3)
    cropped = crop(images, 2)
    torch.manual_seed(3)
    tops, lefts = torch.randint(0, 5, (2, 64, 1))
    assert cropped.dtype == images.dtype
    for image, result, top, left in zip(images, cropped, tops, lefts, strict=True):
        padded = functional.pad(image, [2])
        assert torch.equal(result, functional.crop(padded, int(top), int(left), 8, 10))
    assert {*tops.flatten().tolist()} == {*lefts.flatten().tolist()} == {0, 1, 2, 3, 4}


def test_flip_mirrors_about_half_of_them(images) -> None:
    torch.manual_seed(3)
    flipped = flip(images)
    torch.manual_seed(3)
    mirrored = torch.rand(64) < 0.5
    assert flipped.dtype == images.dtype
    for image, result, turned in zip(images, flipped, mirrored, strict=True):
        assert torch.equal(result, functional.hflip(image) if turned else image)
    assert 16 < mirrored.sum() < 48


@pytest.mark.parametrize("side", [3, 4])
def test_cutout_blanks_a_square_that_may_lie_over_the_edge(images, side) -> None:
    fill = torch.tensor([7.0, 8.0, 9.0])
    torch.manual_seed(3)
    cut = cutout(images, side, fill)
    torch.manual_seed(3)
    rows, columns = torch.randint(0, 8, (64, 1)), torch.randint(0, 10, (64, 1))
    areas = set()
    for image, result, row, column in zip(images, cut, rows, columns, strict=True):
        top, left = int(row) - side // 2, int(column) - side // 2
        expected = image.clone()
        inside = expected[:, max(top, 0) : top + side, max(left, 0) : left + side]
        inside[:] = fill[:, None, None].to(image.dtype)
        areas.add(inside[0].numel())
        assert torch.equal(result, expected)
    assert max(areas) == side * side
    assert min(areas) < side * side


def test_they_draw_from_the_global_generator_alone(images) -> None:
    fill = torch.zeros(3)

    def drawn() -> torch.Tensor:
        torch.manual_seed(5)
        return cutout(flip(crop(images, 4)), 4, fill)

    assert torch.equal(drawn(), drawn())
