"""Networks by name: their first and last layers, what fits, and weights from files."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models, transforms

from clrsearch.errors import TaskError
from clrsearch.tasks.networks import (
    Normalize,
    build_network,
    head_of,
    load_weights,
    network_names,
    require_fit,
)


def weights_of(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def shapes_in(network: nn.Module, names: list[str], images: torch.Tensor) -> list[tuple]:
    """The shapes that layers of these names give."""
    shapes = []
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: shapes.append(tuple(output.shape))
        )
    network(images)
    return shapes


@pytest.mark.parametrize(
    ("small_stem", "sizes"), [(True, (32, 32, 16, 8, 4)), (False, (16, 8, 4, 2, 1))]
)
def test_a_resnet_with_the_small_stem_keeps_the_size_of_cifars_images(small_stem, sizes) -> None:
    network = build_network("resnet18", classes=10, shape=(3, 32, 32), small_stem=small_stem)
    names = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    shapes = shapes_in(network, names, torch.zeros(2, 3, 32, 32))
    widths = (64, 64, 128, 256, 512)
    assert shapes == [(2, w, s, s) for w, s in zip(widths, sizes, strict=True)]
    # torchvision's has 11,689,512 weights with 1,000 classes
    expected = 11_689_512 - 990 * 513 - (9408 - 1728 if small_stem else 0)
    assert weights_of(network) == expected


@pytest.mark.parametrize(("size", "side"), [(32, 4), (28, 3)])
def test_the_network_of_smiths_paper(size, side) -> None:
    shape = (3, size, size)
    network = build_network("cifar10_full", classes=10, shape=shape, small_stem=True)
    convolutions = 32 * (3 * 25 + 1) + 32 * (32 * 25 + 1) + 64 * (32 * 25 + 1)
    assert weights_of(network) == convolutions + 10 * (64 * side**2 + 1)
    assert network(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("cifar10_full", "classifier"),
        ("mobilenet_v3_small", "classifier.3"),
        ("squeezenet1_1", "classifier.1"),
        ("shufflenet_v2_x0_5", "fc"),
        ("densenet121", "classifier"),
        ("regnet_y_400mf", "fc"),
        ("convnext_tiny", "classifier.2"),
        ("swin_t", "head"),
    ],
)
def test_the_last_layer_is_the_head_and_the_first_takes_grey_images(name, head) -> None:
    network = build_network(name, classes=7, shape=(1, 64, 64), small_stem=True)
    assert head_of(network) == head
    last = network.get_submodule(head)
    assert 7 in (getattr(last, "out_features", None), getattr(last, "out_channels", None))
    network.eval()
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


def test_normalize_is_that_of_torchvision() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    mean, deviation = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    expected = transforms.Normalize(mean, deviation)(images.float() / 255)
    layer = Normalize(mean, deviation)
    assert torch.allclose(layer(images), expected, atol=1e-5)
    assert layer.state_dict() == {}


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet81", 32, r"no model 'resnet81' here; did you mean resnet18 or"),
        ("perceptron", 32, "no model 'perceptron' here; "),
        ("inception_v3", 299, "it has several outputs during training"),
        ("alexnet", 32, r"alexnet cannot take images of 32 x 32 pixels \(Given input size"),
        ("vit_b_16", 96, r"cannot take images of 96 x 96 pixels .* Expected 224 but got 96"),
    ],
)
def test_what_does_not_fit_is_refused(name, size, message) -> None:
    with pytest.raises(TaskError, match=message):
        require_fit(name, shape=(3, size, size), small_stem=True)


def test_looking_whether_it_fits_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    require_fit("resnet18", shape=(3, 32, 32), small_stem=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert {"resnet18", "cifar10_full", "vit_b_16"} <= {*network_names()}


def squeezenet(classes: int, *, name: str = "squeezenet1_1") -> nn.Module:
    return models.get_model(name, weights=None, num_classes=classes)


def test_weights_of_a_file_are_loaded_but_for_the_head(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    there, here = squeezenet(1000), squeezenet(5)
    torch.save(there.state_dict(), file)
    own_head = here.classifier[1].weight.clone()
    load_weights(here, file, fresh_head=True)
    assert torch.equal(here.features[0].weight, there.features[0].weight)
    assert torch.equal(here.classifier[1].weight, own_head)
    again = squeezenet(1000)
    load_weights(again, file, fresh_head=False)
    assert torch.equal(again.classifier[1].weight, there.classifier[1].weight)


def test_weights_without_the_counters_of_batch_norm_are_loaded(tmp_path) -> None:
    file = tmp_path / "old.pth"
    there, here = (squeezenet(5, name="shufflenet_v2_x0_5") for _ in range(2))
    state = there.state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("batches_tracked")}, file)
    load_weights(here, file, fresh_head=False)
    assert torch.equal(here.fc.weight, there.fc.weight)


def test_weights_that_do_not_fit_are_refused(tmp_path) -> None:
    network = squeezenet(5)

    def refused(content, *, network=network) -> str:
        file = tmp_path / "weights.pth"
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(TaskError) as caught:
            load_weights(network, file, fresh_head=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no weights file" in refused(None)
    assert "weights.pth is for 1000 classes but the data has 5: options.fresh_head" in refused(
        squeezenet(1000).state_dict()
    )
    assert "lacks features.6.squeeze.weight and has features.5.squeeze.weight, which" in refused(
        squeezenet(5, name="squeezenet1_0").state_dict()
    )
    assert "contains no state_dict" in refused({"model": {}, "epoch": 3})
    assert "cannot be read" in refused(b"not a file of torch")
    assert "cannot be read" in refused(network)  # a pickled model is code
    small = build_network("resnet18", classes=5, shape=(3, 32, 32), small_stem=True)
    message = refused(models.resnet18(num_classes=5).state_dict(), network=small)
    assert "conv1.weight is (64, 3, 7, 7) there but (64, 3, 3, 3) here; options.small" in message
