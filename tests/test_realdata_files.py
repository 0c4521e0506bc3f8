"""The authors' files of MNIST and Fashion-MNIST, against published facts."""

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
    found, facts = data.load(name, data_root), FACTS[name]
    assert found.train_images.shape == (60_000, 28, 28, 1)
    assert found.test_images.shape == (10_000, 28, 28, 1)
    assert (found.classes, found.name, found.source) == (10, name, str(data_root / name))
    assert np.bincount(found.train_labels).tolist() == facts["train"]
    assert np.bincount(found.test_labels).tolist() == facts["test"]
    assert found.train_labels[:10].tolist() == facts["first"]
    assert found.train_images.mean() / 255 == pytest.approx(facts["mean"], abs=1e-3)
    assert found.train_images.std() / 255 == pytest.approx(facts["deviation"], abs=1e-3)


def test_the_variable_and_the_folder_itself_lead_to_the_same_files(data_root, name):
    by_variable, by_folder = data.load(name), data.load(name, data_root / name)
    np.testing.assert_array_equal(by_variable.test_images, by_folder.test_images)
    assert by_variable.source == by_folder.source


def test_validation_is_the_last_ten_thousand(data_root):
    parted = data.load("mnist", data_root, validation=10_000)
    whole = data.load("mnist", data_root)
    assert parted.train_images.shape == (50_000, 28, 28, 1)
    np.testing.assert_array_equal(parted.validation_images, whole.train_images[50_000:])
    np.testing.assert_array_equal(parted.validation_labels, whole.train_labels[50_000:])
