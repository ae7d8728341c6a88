"""The tasks on images, on small data sets in their real formats."""

from __future__ import annotations

import gzip
import math
import urllib.request
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from image_files import (
    md5,
    pictures,
    write_cifar10,
    write_cifar100,
    write_image_folder,
    write_mnist,
)
from torch.nn.functional import cross_entropy
from torchvision import datasets

from clrsearch.errors import TaskError
from clrsearch.tasks import load_task
from clrsearch.tasks.digits import Digits
from clrsearch.tasks.images import held_out
from clrsearch.training import probe

CPU = torch.device("cpu")


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder with 200 images to train and 40 to test."""
    write_cifar10(tmp_path, monkeypatch)
    return tmp_path


def loaded(name, data_dir, **options):
    return load_task(name, options=options, folder=data_dir, data_dir=data_dir)


def refused(name, data_dir, **options) -> str:
    """What it says, in one line."""
    with pytest.raises(TaskError) as caught:
        loaded(name, data_dir, **options).task.data()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cifar10_is_read_from_its_pickles(cifar10) -> None:
    train, validation, test = loaded("cifar10", cifar10).task.data()
    assert [len(split) for split in (train, validation, test)] == [180, 20, 40]
    images, labels = pictures(40, 10, 32, 3, seed=6)
    assert np.array_equal(test.tensors[0].numpy(), images)
    assert test.tensors[0].dtype == torch.uint8
    assert test.tensors[1].tolist() == labels
    # batch by batch in the order of the files, a fixed part of it held out
    images = np.concatenate([pictures(40, 10, 32, 3, seed=part)[0] for part in range(1, 6)])
    chosen, rest = held_out(200)
    assert np.array_equal(validation.tensors[0].numpy(), images[chosen])
    assert np.array_equal(train.tensors[0].numpy(), images[rest])
    assert Counter([*chosen.tolist(), *rest.tolist()]) == Counter(range(200))


def test_the_official_training_sets_keep_5000_for_validation() -> None:
    for count, train in [(50_000, 45_000), (60_000, 55_000)]:
        chosen, rest = held_out(count)
        assert (len(chosen), len(rest)) == (5000, train)
        assert torch.equal(held_out(count)[0], chosen)
        assert chosen.float().mean() == pytest.approx(count / 2, rel=0.03)


def test_cifar100_has_a_hundred_classes(tmp_path, monkeypatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    task = loaded("cifar100", tmp_path, model="squeezenet1_1").task
    assert task.data().test.tensors[1].tolist() == list(range(100))
    task.model().eval()
    assert task.model()(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_mnist_is_read_from_its_idx_files(name, folder, tmp_path) -> None:
    write_mnist(tmp_path, folder)
    task = loaded(name, tmp_path, model="cifar10_full").task
    train, validation, test = task.data()
    assert [len(split) for split in (train, validation, test)] == [180, 20, 40]
    images, labels = pictures(40, 10, 28, 1, seed=2)
    assert np.array_equal(test.tensors[0].numpy(), images)
    assert test.tensors[1].tolist() == labels
    assert not task.options.flip
    assert task.model()(test.tensors[0]).shape == (40, 10)


def test_a_probe_trains_a_resnet_on_cifar10(cifar10) -> None:
    facts = probe(loaded("cifar10", cifar10), batch_size=60, device=CPU)
    assert (facts.metric, facts.direction, facts.steps_per_epoch) == ("accuracy", "maximize", 3)
    assert facts.optimizer == "SGD(momentum=0.9, weight_decay=0.0005, nesterov=True)"
    assert facts.base_lr == 0.1


def test_the_metric_of_mnist_is_the_cross_entropy(tmp_path) -> None:
    write_mnist(tmp_path)
    facts = probe(loaded("mnist", tmp_path, model="cifar10_full"), device=CPU)
    assert (facts.metric, facts.direction) == ("cross_entropy", "minimize")
    write_mnist(tmp_path, "FashionMNIST")
    facts = probe(loaded("fashion-mnist", tmp_path, model="cifar10_full"), device=CPU)
    assert (facts.metric, facts.direction) == ("accuracy", "maximize")


@pytest.mark.parametrize(
    ("options", "kind", "rate", "decay"),
    [
        ({}, "SGD", 0.1, 5e-4),
        ({"optimizer": "momentum", "weight_decay": 0.004}, "SGD", 0.1, 0.004),
        ({"optimizer": "adamw"}, "AdamW", 1e-3, 1e-2),
        ({"optimizer": "adamw", "weight_decay": 0}, "AdamW", 1e-3, 0),
    ],
)
def test_the_optimizer_is_an_option(options, kind, rate, decay, tmp_path) -> None:
    task = loaded("cifar10", tmp_path, model="cifar10_full", **options).task
    optimizer = task.optimizer(task.model())
    (group,) = optimizer.param_groups
    assert (type(optimizer).__name__, group["lr"], group["weight_decay"]) == (kind, rate, decay)
    assert group.get("nesterov", False) == (options == {})


def test_loss_and_measures(tmp_path) -> None:
    task = loaded("cifar10", tmp_path, label_smoothing=0.3).task
    output = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log()
    target = torch.tensor([0, 1])
    assert task.loss(output, target) == cross_entropy(output, target, label_smoothing=0.3)
    measured = task.measure(output, target)
    assert measured["accuracy"].item() == 1
    assert measured["cross_entropy"].item() == pytest.approx(-math.log(0.5) - math.log(0.1))


def test_augmentation_is_what_the_options_say(tmp_path) -> None:
    images = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    images[..., 16:] = 100

    def augmented(**options) -> torch.Tensor:
        torch.manual_seed(0)
        return loaded("cifar10", tmp_path, **{"crop": 0, "flip": False, **options}).task.augment(
            images
        )

    assert torch.equal(augmented(), images)
    assert (augmented(crop=4) == 0).any()
    assert {*augmented(flip=True)[:, 0, 0, 0].tolist()} == {100, 200}
    cut = augmented(cutout=8)
    # of 255 times the means 0.4914, 0.4822 and 0.4465
    assert [{*cut[:, c].unique().tolist()} for c in range(3)] == [
        {100, 125, 200},
        {100, 123, 200},
        {100, 114, 200},
    ]


def test_a_folder_of_images_is_decoded_resized_and_split(tmp_path) -> None:
    write_image_folder(tmp_path / "images")
    there = loaded("image-folder", tmp_path, image_size=32, model="squeezenet1_1")
    train, validation, test = there.task.data()
    assert [len(split) for split in (train, validation, test)] == [54, 6, 60]
    image, label = train[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
    assert label in (0, 1, 2)
    assert [test[index][1] for index in (0, 20, 59)] == [0, 1, 2]
    assert there.task.classes() == 3
    assert probe(there, device=CPU).steps_per_epoch == 1


def test_a_folder_may_have_a_validation_split_of_its_own(tmp_path) -> None:
    write_image_folder(tmp_path / "birds", splits=("train", "validation", "test"))
    splits = loaded("image-folder", tmp_path, image_size=32, folder="birds").task.data()
    assert [len(split) for split in splits] == [60, 60, 60]


def test_fine_tuning_has_a_body_and_a_head(tmp_path) -> None:
    write_image_folder(tmp_path / "images")
    options = {"model": "squeezenet1_1", "image_size": 32, "head_ratio": 10}
    torch.manual_seed(1)
    there = loaded("image-folder", tmp_path, **options).task.model().network
    torch.save(there.state_dict(), tmp_path / "pretrained.pth")
    tuned = loaded("image-folder", tmp_path, **options, weights="pretrained.pth")
    facts = probe(tuned, device=CPU)
    assert (facts.groups, facts.ratios, facts.base_lr) == (("body", "head"), (1, 10), 0.01)
    torch.manual_seed(2)
    model = tuned.task.model()
    assert torch.equal(model.network.features[0].weight, there.features[0].weight)
    assert not torch.equal(model.network.classifier[1].weight, there.classifier[1].weight)
    body, head = tuned.task.optimizer(model).param_groups
    assert {id(each) for each in head["params"]} == {
        id(each) for each in model.network.classifier[1].parameters()
    }
    assert len(body["params"]) + 2 == len([*model.parameters()])


def test_missing_data_is_told_with_how_to_get_it(tmp_path) -> None:
    assert refused("cifar10", tmp_path) == (
        f"no CIFAR10 in {tmp_path} (no cifar-10-batches-py/data_batch_1 and 6 more): the same call "
        "with download=True fetches it, or unpacks cifar-10-python.tar.gz if you have put that "
        "there; --data-dir names another folder"
    )
    assert "unpacks MNIST/raw/train-images-idx3-ubyte.gz, " in refused("mnist", tmp_path)
    assert refused("image-folder", tmp_path).startswith(
        f"no images in {tmp_path / 'images' / 'train'}: put them there as train/CLASS/*.png"
    )


def test_damaged_data_is_told(cifar10, tmp_path) -> None:
    file = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1])
    assert "not the official ones, or damaged: remove them" in refused("cifar10", cifar10)
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    assert "not the official ones, or damaged: remove them" in refused("mnist", tmp_path)


def test_images_of_another_size_are_refused(tmp_path) -> None:
    write_mnist(tmp_path, size=30)
    message = refused("mnist", tmp_path, model="cifar10_full")
    assert message.endswith("are 1 x 30 x 30, not 1 x 28 x 28")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar10", {"model": "alexnet"}, "alexnet cannot take images of 32 x 32 pixels"),
        ("cifar10", {"model": "resnet81"}, "no model 'resnet81' here; did you mean resnet18"),
        ("cifar10", {"image_size": 64}, "options.image_size: is unknown"),
        ("cifar10", {"cutout": 32}, "options.cutout: 32 pixels of images that have 32"),
        ("image-folder", {"image_size": 4}, "options.image_size: .* greater than or equal to 8"),
        ("image-folder", {"model": "vit_b_16", "image_size": 96}, "cannot take images of 96 x 96"),
        ("image-folder", {"folder": "../mine"}, "options.folder: ../mine must lie in the data"),
        ("image-folder", {"folder": "mine"}, "no images in .*/mine/train: put them there"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message, tmp_path, cifar10) -> None:
    write_image_folder(tmp_path / "images", each=2)
    with pytest.raises(TaskError, match=message):
        loaded(name, tmp_path, **options).task.data()


def test_weights_elsewhere_are_refused(tmp_path) -> None:
    task = loaded("cifar10", tmp_path, model="cifar10_full", weights="/tmp/weights.pth").task
    with pytest.raises(TaskError, match=r"options.weights: /tmp/weights.pth must lie in the data"):
        task.model()


def test_a_folder_whose_splits_have_other_classes_is_refused(tmp_path) -> None:
    write_image_folder(tmp_path / "images", splits=("train",), each=2)
    write_image_folder(tmp_path / "images", splits=("test",), classes=("cat", "dog"), each=2)
    assert "train and test differ in the class 'owl'" in refused("image-folder", tmp_path)
    (tmp_path / "images" / "test" / "owl").mkdir()
    assert "Found no valid file for the classes owl" in refused("image-folder", tmp_path)


@pytest.fixture
def mirror():
    """Serve a folder on this machine; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    servers = []

    def serve(folder) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_download_unpacks_what_is_there_and_fetches_what_is_not(
    tmp_path, monkeypatch, mirror
) -> None:
    write_mnist(tmp_path, packed=True)
    raw = tmp_path / "MNIST" / "raw"
    names = [name for name, _ in datasets.MNIST.resources]
    official = [(name, md5(raw / name)) for name in names]
    monkeypatch.setattr(datasets.MNIST, "resources", official)
    (tmp_path / "mirror").mkdir()
    (raw / names[0]).rename(tmp_path / "mirror" / names[0])
    monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror(tmp_path / "mirror")])
    task = loaded("mnist", tmp_path, model="cifar10_full").task
    assert "no MNIST in" in refused("mnist", tmp_path)
    task.download()
    assert (raw / "train-images-idx3-ubyte").read_bytes() == gzip.decompress(
        (tmp_path / "mirror" / names[0]).read_bytes()
    )
    assert len(task.data().train) == 180


def test_a_download_that_fails_says_why(tmp_path, monkeypatch) -> None:
    def no_network(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    for name, dataset in [("cifar10", "CIFAR10"), ("mnist", "MNIST")]:
        with pytest.raises(
            TaskError, match=f"{dataset} cannot be downloaded to .*no route to host"
        ):
            loaded(name, tmp_path).task.download()
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(TaskError, match=r"cannot be downloaded to .*File exists"):
        loaded("cifar10", blocked).task.download()


@pytest.mark.parametrize("name", ["digits", "image-folder"])
def test_nothing_else_can_be_downloaded(name, tmp_path) -> None:
    with pytest.raises(TaskError, match="has nothing to download: leave out --download"):
        loaded(name, tmp_path).task.download()


def test_a_task_knows_where_its_data_lies(tmp_path) -> None:
    assert loaded("digits", tmp_path).task.data_dir == tmp_path
    assert str(Digits().data_dir) == "."
