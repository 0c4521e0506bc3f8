"""The published images of Labelled Faces in the Wild, against counts of its authors."""

import json
import shutil

import numpy as np
import pytest

from jaxsnn import data
from jaxsnn.data import lfw, lfw_split, search
from jaxsnn.inputs import preprocess
from jaxsnn.systems import recipes

pytestmark = pytest.mark.realdata

# Images of the people with 30 to 100, from the list of names that the authors publish.
COUNTS = {
    "Alejandro_Toledo": 39,
    "Alvaro_Uribe": 35,
    "Andre_Agassi": 36,
    "Ariel_Sharon": 77,
    "Arnold_Schwarzenegger": 42,
    "David_Beckham": 31,
    "Gloria_Macapagal_Arroyo": 44,
    "Guillermo_Coria": 30,
    "Hans_Blix": 39,
    "Hugo_Chavez": 71,
    "Jacques_Chirac": 52,
    "Jean_Chretien": 55,
    "Jennifer_Capriati": 42,
    "John_Ashcroft": 53,
    "John_Negroponte": 31,
    "Junichiro_Koizumi": 60,
    "Kofi_Annan": 32,
    "Laura_Bush": 41,
    "Lleyton_Hewitt": 41,
    "Luiz_Inacio_Lula_da_Silva": 48,
    "Megawati_Sukarnoputri": 33,
    "Nestor_Kirchner": 37,
    "Recep_Tayyip_Erdogan": 30,
    "Roh_Moo-hyun": 32,
    "Serena_Williams": 52,
    "Silvio_Berlusconi": 33,
    "Tom_Ridge": 33,
    "Vicente_Fox": 32,
    "Vladimir_Putin": 49,
}


@pytest.fixture(scope="module")
def folder(data_root):
    actual = [data_root / name for name in search.SOURCES["lfw"].folders]
    actual = [place for place in actual if place.is_dir()]
    if not actual:
        pytest.skip("no folder of faces below $JAXSNN_DATA")
    return actual[0]


@pytest.fixture(scope="module")
def faces(folder):
    return data.load("lfw", folder)


def test_29_people_have_1230_images(folder):
    people = lfw_split.find_people(folder)
    assert {person: len(actual) for person, actual in people.kept.items()} == COUNTS
    assert len(people.images) == sum(COUNTS.values()) == 1230
    assert people.left_out["Gerhard_Schroeder"] == 109
    assert {people.left_out[name] for name in ("Bill_Clinton", "Mahmoud_Abbas")} == {29}


def test_a_fifth_of_everybodys_images_is_for_testing(faces):
    assert faces.classes == 29
    assert faces.train_images.shape == (984, 96, 96, 3)
    assert faces.test_images.shape == (246, 96, 96, 3)
    train, test = (np.bincount(part) for part in (faces.train_labels, faces.test_labels))
    assert (train + test).tolist() == list(COUNTS.values())
    assert np.abs(test - np.array(list(COUNTS.values())) / 5).max() < 1


def test_no_test_image_is_a_training_image(faces):
    train = {image.tobytes() for image in faces.train_images}
    assert not any(image.tobytes() in train for image in faces.test_images)


def test_the_stored_split_is_the_drawn_one(folder, faces, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "lfw-deepfunneled")
    (copy / lfw_split.SPLIT).unlink(missing_ok=True)
    assert lfw.main([str(copy)]) == 0
    content = json.loads((copy / lfw_split.SPLIT).read_text())
    assert (len(content["train"]), len(content["test"])) == (984, 246)
    stored = data.load("lfw", copy)
    if faces.source.endswith("seed 0"):
        np.testing.assert_array_equal(stored.train_images, faces.train_images)
        np.testing.assert_array_equal(stored.test_labels, faces.test_labels)


def test_faces_are_upright_and_in_colour(faces):
    """Skin is redder than it is blue, the middle of an aligned face brighter than its margins, and
    the left half is about the mirror image of the right one."""
    mean = faces.train_images.mean(0)
    assert mean[..., 0].mean() > mean[..., 1].mean() > mean[..., 2].mean()
    assert mean[32:64, 32:64].mean() > mean[:, :8].mean()
    assert np.abs(mean - mean[:, ::-1]).mean() < 10
    eyes, cheeks = mean[30:42, 20:76].mean(), mean[52:64, 20:76].mean()
    assert eyes < cheeks


def test_units_of_the_test_images_fit_the_encoding(faces):
    recipe = recipes.fast_snn("lfw")
    units = preprocess.units_of(recipe, faces.test_images)
    assert units.shape == (246, 64, 64, 3)
    assert np.abs(units).max() <= recipe.encoding.highest
