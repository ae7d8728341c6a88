"""Small image data sets, each in its real format on the disk.

The images of a class have one colour each, under noise, so that there is something to learn.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets


def pictures(count: int, classes: int, size: int, channels: int, seed: int):
    """Images (N, C, S, S) as bytes, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    colours = np.random.default_rng(0).integers(40, 215, (classes, channels, 1, 1))
    noise = generator.normal(0, 40, (count, channels, size, size))
    return (colours[labels] + noise).clip(0, 255).astype(np.uint8), labels.tolist()


def write_cifar10(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, train: int = 200, test: int = 40
) -> None:
    """CIFAR-10's folder of pickles, whose MD5s torchvision then takes for the official ones."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    parts = [(f"data_batch_{number}", train // 5, number) for number in range(1, 6)]
    for name, count, seed in [*parts, ("test_batch", test, 6)]:
        images, labels = pictures(count, 10, 32, 3, seed)
        _pickle(place / name, {"data": images.reshape(count, -1), "labels": labels})
    _pickle(place / "batches.meta", {"label_names": [f"class {k}" for k in range(10)]})
    _official(datasets.CIFAR10, place, monkeypatch)


def write_cifar100(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of CIFAR-100: 200 images to train, 100 to test."""
    place = folder / "cifar-100-python"
    place.mkdir(parents=True)
    for name, count, seed in [("train", 200, 1), ("test", 100, 2)]:
        images, labels = pictures(count, 100, 32, 3, seed)
        _pickle(
            place / name,
            {
                "data": images.reshape(count, -1),
                "fine_labels": labels,
                "coarse_labels": [label // 5 for label in labels],
            },
        )
    _pickle(place / "meta", {"fine_label_names": [f"class {k}" for k in range(100)]})
    _official(datasets.CIFAR100, place, monkeypatch)


def write_mnist(
    folder: Path, name: str = "MNIST", *, train: int = 200, size: int = 28, packed: bool = False
) -> None:
    """The four idx files of MNIST or FashionMNIST, as they are published or unpacked."""
    place = folder / name / "raw"
    place.mkdir(parents=True)
    for part, count, seed in [("train", train, 1), ("t10k", 40, 2)]:
        images, labels = pictures(count, 10, size, 1, seed)
        for kind, content in {
            "images-idx3": struct.pack(">4I", 0x803, count, size, size) + images.tobytes(),
            "labels-idx1": struct.pack(">2I", 0x801, count) + bytes(labels),
        }.items():
            file = place / f"{part}-{kind}-ubyte"
            if packed:
                file.with_suffix(".gz").write_bytes(gzip.compress(content))
            else:
                file.write_bytes(content)


def write_image_folder(
    folder: Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    each: int = 20,
) -> None:
    """A tree ``SPLIT/CLASS/*.png`` of images that are not square."""
    for seed, split in enumerate(splits):
        images, labels = pictures(each * len(classes), len(classes), 40, 3, seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / split / classes[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, :, :36].transpose(1, 2, 0)).save(file)


def md5(file: Path) -> str:
    """As the lists of torchvision have it."""
    return hashlib.md5(file.read_bytes()).hexdigest()


def _pickle(file: Path, content: dict) -> None:
    file.write_bytes(pickle.dumps(content, protocol=2))


def _official(kind: type, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the MD5s of the files in ``place`` where torchvision has those of the real ones."""
    for name in ("train_list", "test_list"):
        files = [[file, md5(place / file)] for file, _ in getattr(kind, name)]
        monkeypatch.setattr(kind, name, files)
    meta = {**kind.meta, "md5": md5(place / kind.meta["filename"])}
    monkeypatch.setattr(kind, "meta", meta)
