"""A folder of people: who is kept, the split that never moves, and what is refused."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import isolate
from PIL import Image

from jaxsnn import data
from jaxsnn.data import lfw, lfw_split

# Ada and Eve have too few and too many images, by one; the others are kept, in the order of names.
COUNTS = {"Eve_Many": 101, "Cid_Fewest": 30, "Ada_Few": 29, "Bob_Most": 100}
KEPT = {"Bob_Most": 100, "Cid_Fewest": 30}


def jpeg(colour, size=(250, 250), mode="RGB", form="JPEG"):
    file = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    Image.new(mode, size, colour).save(file, form, **options)
    return file.getvalue()


def colour(person, number):
    """Of a made face: who it is, and which."""
    return 50 * sorted(COUNTS).index(person), 15 * (number % 16), 15 * (number // 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The people, made once."""
    folder = tmp_path_factory.mktemp("made") / "people"
    for person, count in COUNTS.items():
        (folder / person).mkdir(parents=True)
        for number in range(1, count + 1):
            content = jpeg(colour(person, number)) if person in KEPT else b"never opened"
            (folder / person / f"{person}_{number:04d}.jpg").write_bytes(content)
    (folder / "README.txt").write_text("no folder")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy that a test may change, with no other data about."""
    isolate(tmp_path, monkeypatch)
    return shutil.copytree(made, tmp_path / "lfw-deepfunneled")


def by_name(folder):
    """The names of the training and of the test images, by the rule and NumPy alone.

    130 images, a fifth for testing: 26, of which 100 / 130 and 30 / 130 are 20 and 6.
    """
    names = [f"{p}/{p}_{n:04d}.jpg" for p, count in KEPT.items() for n in range(1, count + 1)]
    order = [names[index] for index in np.random.RandomState(0).permutation(130)]
    test = [name for name in order if name.startswith("Bob")][:20]
    test += [name for name in order if name.startswith("Cid")][:6]
    return sorted(set(names) - set(test)), sorted(test)


def shown(images):
    """The person and the number that the colours of the images name."""
    red, low, high = np.round(images[:, 48, 48] / np.array([50, 15, 15])).astype(int).T
    return [(sorted(COUNTS)[r], int(n)) for r, n in zip(red, low + 16 * high, strict=True)]


def names_of(images):
    return sorted(f"{person}/{person}_{number:04d}.jpg" for person, number in shown(images))


def test_people_with_30_to_100_images_are_kept(folder):
    faces = data.load("lfw", folder)
    assert (faces.classes, faces.name, faces.input_shape) == (2, "lfw", (96, 96, 3))
    assert np.bincount(faces.train_labels).tolist() == [80, 24]
    assert np.bincount(faces.test_labels).tolist() == [20, 6]
    assert faces.source == f"{folder}, split drawn from seed 0"


def test_every_image_has_the_label_of_its_person(folder):
    faces = data.load("lfw", folder)
    for images, labels in (
        (faces.train_images, faces.train_labels),
        (faces.test_images, faces.test_labels),
    ):
        assert [list(KEPT)[label] for label in labels] == [person for person, _ in shown(images)]


def test_the_split_is_drawn_from_names_and_seed_alone(folder):
    faces = data.load("lfw", folder)
    train, test = by_name(folder)
    assert names_of(faces.train_images) == train
    assert names_of(faces.test_images) == test
    assert not set(train) & set(test)


def test_the_central_window_is_kept(folder):
    """White in the middle 96x96, black around: one pixel off would show."""
    picture = np.zeros((250, 250, 3), np.uint8)
    picture[77:173, 77:173] = 255
    path = folder / "Cid_Fewest" / "Cid_Fewest_0001.jpg"
    Image.fromarray(picture).save(path, quality=100, subsampling=0)
    faces = data.load("lfw", folder)
    whole = np.concatenate([faces.train_images, faces.test_images])
    brightest = whole[np.argmax(whole[:, 48, 48].astype(int).sum(-1))]
    assert brightest.min() > 240


def test_the_stored_split_is_the_drawn_one_image_by_image(folder):
    drawn = data.load("lfw", folder)
    assert lfw.main([str(folder)]) == 0
    stored = data.load("lfw", folder)
    assert stored.source == f"{folder}, split of {folder / 'lfw_split.json'}"
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(stored, part), getattr(drawn, part))


def test_the_file_lists_sorted_names_seed_and_counts(folder):
    lfw.main([str(folder)])
    content = json.loads((folder / "lfw_split.json").read_text())
    train, test = by_name(folder)
    assert content == {
        "dataset": "lfw",
        "seed": 0,
        "train_images": 104,
        "test_images": 26,
        "people": {"Bob_Most": {"train": 80, "test": 20}, "Cid_Fewest": {"train": 24, "test": 6}},
        "train": train,
        "test": test,
    }
    before = (folder / "lfw_split.json").read_bytes()
    assert lfw.main([str(folder)]) == 0  # again, with the same result
    assert (folder / "lfw_split.json").read_bytes() == before


def test_a_stored_split_of_another_seed_is_used(folder):
    drawn = data.load("lfw", folder)
    lfw.main([str(folder), "--seed", "3"])
    stored = data.load("lfw", folder)
    assert np.bincount(stored.test_labels).tolist() == [20, 6]
    content = json.loads((folder / "lfw_split.json").read_text())
    assert names_of(stored.test_images) == content["test"] != names_of(drawn.test_images)


def test_a_split_beside_the_folder_is_used_where_the_folder_cannot_be_written(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    lfw.main([str(folder), "--seed", "3"])
    beside = folder.with_name("lfw-deepfunneled_lfw_split.json")
    assert not (folder / "lfw_split.json").exists()
    faces = data.load("lfw", folder)
    assert names_of(faces.test_images) == json.loads(beside.read_text())["test"]


def test_a_folder_without_a_name_finds_its_neighbour(folder, monkeypatch):
    monkeypatch.chdir(folder / "Bob_Most")
    for path, inside in ((".", folder / "Bob_Most"), ("..", folder)):
        places = lfw_split.split_places(type(folder)(path))
        assert places == (
            inside / "lfw_split.json",
            inside.with_name(f"{inside.name}_lfw_split.json"),
        )


def test_held_out_images_have_everybodys_share(folder):
    """13 of 104 training images: 10 of 80, and 3 of 24."""
    parted = data.load("lfw", folder, validation=13)
    assert np.bincount(parted.validation_labels).tolist() == [10, 3]
    assert np.bincount(parted.train_labels).tolist() == [70, 21]
    # and are no run of files
    numbers = [number for person, number in shown(parted.validation_images) if person[0] == "B"]
    assert numbers != sorted(numbers)


def test_files_with_another_ending_are_counted(folder):
    """One of Bob's 100 and two of Cid's 30, which leaves him too few."""
    for person, number in (("Bob_Most", 1), ("Cid_Fewest", 1), ("Cid_Fewest", 2)):
        path = folder / person / f"{person}_{number:04d}.jpg"
        path.rename(path.with_suffix(".png"))
    (folder / "Ada_Few" / ".hidden").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 files of 2 people are left out.* \(1 in Bob_Most\)"):
        faces = data.load("lfw", folder)
    assert faces.classes == 1
    assert len(faces.train_images) + len(faces.test_images) == 99


def put(folder, content, name="Cid_Fewest/Cid_Fewest_0007.jpg"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no JPEG file .*unpack it again"),
        (b"no image at all", "damaged or no JPEG file"),
        (jpeg(0)[:-100], "damaged or no JPEG file .*truncated"),
        (jpeg(0, form="PNG"), "damaged or no JPEG file"),
        (jpeg(0, (250, 249)), "RGB of 250x249, wanted RGB of 250x250"),
        (jpeg(0, (64, 64)), "RGB of 64x64, wanted RGB of 250x250"),
        (jpeg(0, mode="L"), "L of 250x250, wanted RGB of 250x250"),
    ],
)
def test_a_file_that_is_no_such_face_is_named(folder, content, message):
    path = put(folder, content)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        data.load("lfw", folder)


def test_a_folder_called_like_an_image_is_none(folder):
    (folder / "Cid_Fewest" / "Cid_Fewest_0031.jpg").mkdir()
    assert data.load("lfw", folder).train_images.shape[0] == 104


def test_hidden_files_are_passed_over_and_capitals_count(folder):
    put(folder, b"of another system", "Cid_Fewest/._Cid_Fewest_0001.jpg")
    for number in range(1, 31):
        put(folder, jpeg(0), f"Ada_Few/Ada_Few_{number:04d}.{'JPG' if number == 30 else 'jpg'}")
    people = lfw_split.find_people(folder)
    assert {person: len(actual) for person, actual in people.kept.items()} == {
        "Ada_Few": 30,
        **KEPT,
    }
    assert people.left_out == {"Eve_Many": 101}
    assert data.load("lfw", folder).classes == 3


def test_a_stored_split_refuses_more_files(folder):
    lfw.main([str(folder)])
    put(folder, jpeg(0), "Cid_Fewest/Cid_Fewest_0031.jpg")
    path = folder / "lfw_split.json"
    message = f"{path} is a split of other files .*: 0 .* not there and 1 are not in it"
    with pytest.raises(ValueError, match=f"{message}, the first 'Cid_Fewest/Cid_Fewest_0031.jpg'"):
        data.load("lfw", folder)
    path.unlink()  # the remedy
    assert len(data.load("lfw", folder).train_images) == 131 - 26


def test_a_stored_split_refuses_another_person(folder):
    """One image more, and Ada is kept with all of hers."""
    lfw.main([str(folder)])
    put(folder, jpeg(0), "Ada_Few/Ada_Few_0030.jpg")
    with pytest.raises(
        ValueError, match=r"0 of .* 30 are not in it, the first 'Ada_Few/Ada_Few_0001"
    ):
        data.load("lfw", folder)


def test_a_stored_split_refuses_fewer_files(folder):
    lfw.main([str(folder)])
    (folder / "Bob_Most" / "Bob_Most_0050.jpg").unlink()
    with pytest.raises(ValueError, match="1 of its images are not there and 0 are not in it"):
        data.load("lfw", folder)


def changed(**change):
    return lambda content: {**content, **change}


def twice(content):
    return {**content, "train": [*content["train"], content["test"][0]]}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        changed(seed="0"),
        changed(seed=-1),
        changed(train=None),
        changed(test=[1, 2]),
        changed(test_images=27),
        changed(people={}),
        changed(dataset="mnist"),
        lambda content: {**content, "train": content["train"][::-1]},
        lambda content: {**content, "train": content["train"] + content["test"], "test": []},
        twice,
    ],
)
def test_a_damaged_split_is_named(folder, change):
    lfw.main([str(folder)])
    path = folder / "lfw_split.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=f"{path}: no split of faces; delete it"):
        data.load("lfw", folder)


def test_a_split_that_breaks_off_is_named(folder):
    lfw.main([str(folder)])
    path = folder / "lfw_split.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path}: not a complete JSON file"):
        data.load("lfw", folder)


def test_another_split_is_never_written_over(folder, capsys):
    lfw.main([str(folder)])
    before = (folder / "lfw_split.json").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        lfw.main([str(folder), "--seed", "1"])
    assert stopped.value.code == 2
    assert "lfw_split.json holds another split" in capsys.readouterr().err
    assert (folder / "lfw_split.json").read_bytes() == before


def test_the_command_lists_people_and_counts(folder, tmp_path, capsys):
    (folder / "Dot_None").mkdir()
    out = tmp_path / "other" / "split.json"
    assert lfw.main([str(folder), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    lines = [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["Bob_Most", "0", "100", "80", "20"],
        ["Cid_Fewest", "1", "30", "24", "6"],
        ["2 people", "", "130", "104", "26"],
    ]
    assert "3 folders left out: 2 with fewer than 30 images, 1 with more than 100\n" in text
    assert f"split written to {out}\n" in text
    assert f"It is used once it lies in {folder} as lfw_split.json." in text
    assert json.loads(out.read_text())["test"] == by_name(folder)[1]
    assert not (folder / "lfw_split.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["folder", "--seed", "-1"], "seed -1: .*0 to 4294967295"),
        (["folder", "--out", "folder/README.txt/split.json"], "cannot be written"),
        (["folder", "--out", "folder/Bob_Most"], "Bob_Most cannot be written"),
        (["folder/Bob_Most"], "Bob_Most: nobody has 30 to 100 images, of 0 people"),
    ],
)
def test_mistakes_end_with_status_2(folder, arguments, message, capsys):
    words = [text.replace("folder", str(folder)) for text in arguments]
    with pytest.raises(SystemExit) as stopped:
        lfw.main(words)
    assert stopped.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_the_command_runs_without_a_warning(folder):
    command = [sys.executable, "-m", "jaxsnn.data.lfw", str(folder)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "2 people" in done.stdout
    assert done.stderr == ""
    # another process, the same split
    people = lfw_split.find_people(folder)
    stored = lfw_split.read_split(folder / "lfw_split.json", people)
    drawn = lfw_split.draw_split(people)
    np.testing.assert_array_equal(stored.train, drawn.train)
    np.testing.assert_array_equal(stored.test, drawn.test)


def test_the_folder_above_leads_to_the_people(folder, monkeypatch):
    """Whatever else lies there: another folder of pictures is not taken for a person."""
    above = folder.parent
    (above / "pictures").mkdir()
    put(above, b"a picture", "pictures/holiday.jpg")
    wanted = data.load("lfw", folder)
    dataset = data.load("lfw", above)
    np.testing.assert_array_equal(dataset.train_images, wanted.train_images)
    monkeypatch.setenv("JAXSNN_DATA", str(above))
    assert data.load("lfw").source == wanted.source
    folder.rename(above / "lfw_funneled")
    np.testing.assert_array_equal(data.load("lfw").test_images, wanted.test_images)


def test_nobody_with_enough_images_is_refused(folder):
    for person in KEPT:
        shutil.rmtree(folder / person)
    shutil.rmtree(folder / "Eve_Many")
    with pytest.raises(
        ValueError, match="nobody has 30 to 100 images, of 1 people with at most 29"
    ):
        data.load("lfw", folder)


def test_what_is_nowhere_is_asked_for(tmp_path, monkeypatch):
    isolate(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="lfw was not found") as raised:
        data.load("lfw", tmp_path)
    text = str(raised.value)
    assert f"  {tmp_path / 'lfw-deepfunneled'}\n" in text
    assert "Files wanted: <Name>/*.jpg\n" in text
    assert "tensorflow" not in text  # its lfw has no split
    assert not [place for place in data.locations("lfw") if "tensorflow" in str(place)]
