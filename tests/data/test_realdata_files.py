"""The authors' files of MNIST, Fashion-MNIST and CIFAR-10, against published facts."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxsnn import data

pytestmark = pytest.mark.realdata

# Training and test images per class: counts that LeCun, Cortes and Burges report for MNIST;
# Fashion-MNIST is balanced by construction (Xiao, Rasul and Vollgraf 2017).
FACTS = {
    "mnist": {
        "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        "mean": 0.1307,
        "deviation": 0.3081,
        "first": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
    },
    "fashion_mnist": {
        "train": [6000] * 10,
        "test": [1000] * 10,
        "mean": 0.2860,
        "deviation": 0.3530,
        "first": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
    },
}


@pytest.fixture(params=sorted(FACTS))
def name(request):
    return request.param


def test_shapes_labels_and_moments(data_root, name):
    dataset, facts = data.load(name, data_root), FACTS[name]
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert dataset.test_images.shape == (10_000, 28, 28, 1)
    assert (dataset.classes, dataset.name, dataset.source) == (10, name, str(data_root / name))
    assert np.bincount(dataset.train_labels).tolist() == facts["train"]
    assert np.bincount(dataset.test_labels).tolist() == facts["test"]
    assert dataset.train_labels[:10].tolist() == facts["first"]
    assert dataset.train_images.mean() / 255 == pytest.approx(facts["mean"], abs=1e-3)
    assert dataset.train_images.std() / 255 == pytest.approx(facts["deviation"], abs=1e-3)


def test_the_variable_and_the_folder_itself_lead_to_the_same_files(data_root, name):
    by_variable, by_folder = data.load(name), data.load(name, data_root / name)
    np.testing.assert_array_equal(by_variable.test_images, by_folder.test_images)
    assert by_variable.source == by_folder.source


def test_validation_is_ten_thousand_of_every_class_its_share(data_root):
    parted = data.load("mnist", data_root, validation=10_000)
    whole = data.load("mnist", data_root)
    assert parted.train_images.shape == (50_000, 28, 28, 1)
    held_out = np.bincount(parted.validation_labels, minlength=10)
    share = np.bincount(whole.train_labels, minlength=10) / 6
    assert held_out.sum() == 10_000
    assert np.abs(held_out - share).max() < 1
    both = np.concatenate([parted.train_images, parted.validation_images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole.train_images))


# Krizhevsky (2009): 5,000 and 1,000 images a class. Means and deviations of the training images in
# 0..255 are those by which the field standardises (0.4914, 0.4822, 0.4465 and 0.2470, 0.2435,
# 0.2616 of 255); the first images of the first batch are a frog and two trucks.
CIFAR_MEANS = (125.3, 123.0, 113.9)
CIFAR_DEVIATIONS = (63.0, 62.1, 66.7)


def test_cifar10_shapes_labels_and_moments(data_root):
    dataset = data.load("cifar10", data_root)
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    assert dataset.test_images.shape == (10_000, 32, 32, 3)
    assert (dataset.classes, dataset.name) == (10, "cifar10")
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    assert dataset.train_labels[:3].tolist() == [6, 9, 9]
    axes = (0, 1, 2)
    assert dataset.train_images.mean(axes) == pytest.approx(CIFAR_MEANS, abs=0.1)
    assert dataset.train_images.std(axes) == pytest.approx(CIFAR_DEVIATIONS, abs=0.1)


def test_cifar10_images_are_upright_and_in_colour(data_root):
    """In a photograph neighbours are alike along both axes, and the three colours of a pixel too;
    a wrong order of the planes would scatter them."""
    images = data.load("cifar10", data_root).test_images[:1000].astype(float)
    spread = images.std()
    for differences in (np.diff(images, axis=1), np.diff(images, axis=2), np.diff(images, axis=3)):
        assert np.abs(differences).mean() < spread / 3
    # The sky is above: the upper rows of aeroplanes, ships and all the rest are the brighter ones.
    assert images[:, :8].mean() > images[:, -8:].mean()
    # And bluer than the ground, so that the channels are red, green, blue in this order.
    blue = images[..., 2] - images[..., 0]
    assert blue[:, :8].mean() > blue[:, -8:].mean()


def test_cifar10s_archive_gives_the_same_images(data_root, tmp_path):
    """The archive is packed here of the author's files, since not everyone keeps it."""
    by_files = data.load("cifar10", data_root)
    archive = tmp_path / "cifar-10-python.tar.gz"
    if Path(by_files.source).suffix == ".gz":
        pytest.skip(f"{by_files.source} is the archive itself")
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(by_files.source, "cifar-10-batches-py")
    by_archive = data.load("cifar10", tmp_path)
    assert by_archive.source == str(archive)
    np.testing.assert_array_equal(by_archive.train_images, by_files.train_images)
    np.testing.assert_array_equal(by_archive.test_labels, by_files.test_labels)
