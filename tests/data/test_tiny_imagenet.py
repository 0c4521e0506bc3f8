"""Tiny ImageNet's folder, as published and by class: what is read, and what is refused."""

import io
import shutil

import numpy as np
import pytest
from data_files import isolate
from PIL import Image

from jaxsnn import data
from jaxsnn.data import tiny_imagenet

# As in the published file, not in order: the class of number 0 is n01.
NAMES = ("n03", "n01", "n02")
TRAIN, TEST = 4, 2


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


def jpeg(colour, size=(64, 64), mode="RGB", form="JPEG"):
    file = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" and mode == "RGB" else {}
    Image.new(mode, size, colour).save(file, form, **options)
    return file.getvalue()


def colour(number, part, index):
    """Of class ``number``: the class, the part and the image are told from it."""
    return 40 * number + 20, 200 if part == "train" else 50, 30 * index + 15


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write(folder, moved=False):
    """Three classes of four training, two test images; ``moved``: by class, as the script does."""
    put(folder / "wnids.txt", "".join(f"{name}\n" for name in NAMES).encode())
    lines, inner = [], "" if moved else "images/"
    for number, name in enumerate(sorted(NAMES)):
        for index in range(TRAIN):
            path = folder / "train" / name / f"{inner}{name}_{index}.JPEG"
            put(path, jpeg(colour(number, "train", index)))
        if not moved:
            put(folder / "train" / name / f"{name}_boxes.txt", b"n_0.JPEG\t0\t0\t9\t9\n")
        for index in range(TEST):
            image = f"val_{3 * index + 2 - number}.JPEG"  # the classes take turns
            place = name if moved else "images"
            put(folder / "val" / place / image, jpeg(colour(number, "val", index)))
            lines.append(f"{image}\t{name}\t0\t32\t44\t62\n")
    put(folder / "val" / "val_annotations.txt", "".join(sorted(lines)).encode())
    put(folder / "test" / "images" / "test_0.JPEG", b"never opened")
    return folder


def load(folder):
    return tiny_imagenet.load_folder(folder, "tiny_imagenet", 3, (64, 64, 3))


def told(images):
    """Class, part and index that the colours of the images name."""
    red, green, blue = images[:, 32, 32].astype(int).T
    parts = ["train" if value > 125 else "val" for value in green]
    indices = np.round((blue - 15) / 30).astype(int)
    return list(zip(np.round((red - 20) / 40).astype(int).tolist(), parts, indices, strict=True))


@pytest.mark.parametrize("moved", [False, True])
def test_images_have_the_labels_of_their_classes(tmp_path, moved):
    dataset = load(write(tmp_path, moved))
    assert (dataset.classes, dataset.name, dataset.source) == (3, "tiny_imagenet", str(tmp_path))
    for part, count in (("train", TRAIN), ("val", TEST)):
        prefix = "train" if part == "train" else "test"
        images, labels = getattr(dataset, f"{prefix}_images"), getattr(dataset, f"{prefix}_labels")
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert images.shape == (3 * count, 64, 64, 3)
        seen = told(images)
        assert [number for number, *_ in seen] == labels.tolist()
        assert sorted(seen) == [(n, part, i) for n in range(3) for i in range(count)]


@pytest.mark.parametrize("moved", [False, True])
def test_training_and_test_may_be_moved_alone(tmp_path, moved):
    folder, other = write(tmp_path / "a", moved), write(tmp_path / "b", not moved)
    shutil.rmtree(folder / "val")
    shutil.copytree(other / "val", folder / "val")
    mixed, whole = load(folder), load(other)
    assert sorted(told(mixed.test_images)) == sorted(told(whole.test_images))
    np.testing.assert_array_equal(mixed.train_labels, whole.train_labels)


def test_classes_moved_with_their_folder_of_images_are_read(tmp_path):
    """Some scripts keep ``images`` within the class, and leave the old one empty."""
    folder = write(tmp_path, moved=True)
    for name in NAMES:
        inner = folder / "val" / name / "images"
        inner.mkdir()
        for path in (folder / "val" / name).glob("*.JPEG"):
            path.rename(inner / path.name)
    (folder / "val" / "images").mkdir()
    (folder / "val" / "val_annotations.txt").unlink()
    assert np.bincount(load(folder).test_labels).tolist() == [TEST] * 3


def test_held_out_images_have_every_classes_share(tmp_path):
    """The last three of twelve training images: one of each class."""
    assert sorted(load(write(tmp_path)).train_labels[-3:]) == [0, 1, 2]


def test_grey_images_get_three_equal_channels(tmp_path):
    folder = write(tmp_path)
    put(folder / "train" / "n01" / "images" / "n01_0.JPEG", jpeg(77, mode="L"))
    dataset = load(folder)
    (grey,) = [image for image in dataset.train_images if (image == 77).all()]
    assert grey.shape == (64, 64, 3)


def test_hidden_files_are_passed_over(tmp_path):
    folder = write(tmp_path)
    put(folder / "train" / "n01" / "images" / "._n01_0.JPEG", b"of another system")
    (folder / "train" / ".cache").mkdir()
    assert len(load(folder).train_images) == 3 * TRAIN


@pytest.mark.parametrize(
    "layout", [".", "tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200", "TinyImageNet"]
)
def test_usual_layouts_of_200_classes_are_found_from_above(tmp_path, layout):
    folder = tmp_path / "root" / layout
    names = [f"n{number:08d}" for number in range(200)]
    put(folder / "wnids.txt", "\n".join(names).encode())
    image = jpeg((1, 2, 3))
    for name in names:
        put(folder / "train" / name / "images" / f"{name}_0.JPEG", image)
        put(folder / "val" / name / f"{name}_1.JPEG", image)
    dataset = data.load("tiny_imagenet", tmp_path / "root")
    assert (dataset.classes, dataset.input_shape) == (200, (64, 64, 3))
    assert sorted(dataset.train_labels) == sorted(dataset.test_labels) == list(range(200))
    assert data.load("tiny-imagenet", tmp_path / "root").source == str(folder)


def test_a_folder_without_the_list_of_classes_is_none(tmp_path):
    write(tmp_path)
    (tmp_path / "wnids.txt").unlink()
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


def test_what_is_nowhere_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="tiny_imagenet was not found") as error:
        data.load("tiny_imagenet", tmp_path)
    text = str(error.value)
    assert f"  {tmp_path / 'tiny-imagenet-200'}\n" in text
    assert "Files wanted: wnids.txt, train/<class>/" in text
    assert "tensorflow" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg(0)[:-60], "damaged or no JPEG file .*truncated"),
        (b"", "damaged or no JPEG file"),
        (jpeg(0, form="PNG"), "damaged or no JPEG file"),
        (jpeg(0, size=(64, 63)), "RGB of 64x63, wanted RGB or L of 64x64"),
        (jpeg(0, mode="CMYK"), "CMYK of 64x64, wanted RGB or L of 64x64"),
    ],
)
@pytest.mark.parametrize("file", ["train/n02/images/n02_3.JPEG", "val/images/val_1.JPEG"])
def test_a_file_that_is_no_such_image_is_named(tmp_path, file, content, message):
    folder = write(tmp_path)
    put(folder / file, content)
    with pytest.raises(ValueError, match=f"{folder / file}: {message}.*tiny-imagenet-200.zip"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n01\nn02\n", "names 2 classes, 2 of them different; wanted 3"),
        ("n01\nn02\nn03\nn04\n", "names 4 classes"),
        ("n01\nn02\nn02\n", "names 3 classes, 2 of them different; wanted 3"),
        ("", "names 0 classes"),
        (b"\xff\xfe\x00", "cannot be read .UnicodeDecodeError"),
    ],
)
def test_a_wrong_list_of_classes_is_named(tmp_path, content, message):
    folder = write(tmp_path)
    put(folder / "wnids.txt", content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"{folder / 'wnids.txt'}: {message}"):
        load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "\tn02\t",
            "\tn09\t",
            r"line \d gives 'val_\d.JPEG' the class 'n09', which is not in wnids",
        ),
        ("val_0.JPEG\tn03\t0\t32\t44\t62", "val_0.JPEG", "line 1 gives 'val_0.JPEG' the class ''"),
        (
            "val_0.JPEG\tn03\t0\t32\t44\t62\n",
            "",
            "5 images have a label, but 6 lie in .*'val_0.JPEG'",
        ),
        (
            "val_0.JPEG",
            "val_9.JPEG",
            "6 images have a label, but 6 lie in .*'val_0.JPEG' is not in",
        ),
    ],
)
def test_wrong_annotations_are_named(tmp_path, old, new, message):
    folder = write(tmp_path)
    path = folder / "val" / "val_annotations.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        load(folder)


def test_missing_annotations_are_named(tmp_path):
    folder = write(tmp_path)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(ValueError, match=r"val_annotations\.txt: cannot be read .FileNotFound"):
        load(folder)


def test_an_image_without_a_label_is_named(tmp_path):
    folder = write(tmp_path)
    put(folder / "val" / "images" / "val_77.JPEG", jpeg(0))
    with pytest.raises(ValueError, match=r"6 images have a label, but 7 lie .*'val_77\.JPEG'"):
        load(folder)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_folder_is_named(tmp_path, part):
    folder = write(tmp_path)
    shutil.rmtree(folder / part)
    with pytest.raises(
        ValueError, match=f"{folder} holds only a part of tiny_imagenet; .*: {part};"
    ):
        load(folder)


@pytest.mark.parametrize(("part", "moved"), [("train", False), ("train", True), ("val", True)])
def test_missing_and_unknown_classes_are_named(tmp_path, part, moved):
    folder = write(tmp_path, moved)
    (folder / part / "n99").mkdir()
    with pytest.raises(ValueError, match=f"{folder / part / 'n99'}: unknown .0 folders .* 1 unkn"):
        load(folder)
    (folder / part / "n99").rmdir()
    shutil.rmtree(folder / part / "n02")
    with pytest.raises(ValueError, match=f"{folder / part / 'n02'}: missing .1 folders of classes"):
        load(folder)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("part", ["train", "val"])
def test_classes_of_different_size_are_named(tmp_path, part, moved):
    folder = write(tmp_path, moved)
    lost = sorted((folder / part).glob("**/*.JPEG"))[0]
    lost.unlink()
    if part == "val" and not moved:
        path = folder / "val" / "val_annotations.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    others = TRAIN if part == "train" else TEST
    message = f"{folder / part}: class n0[123] has {others - 1} images, others {others};"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_images_that_were_half_moved_are_refused(tmp_path):
    folder = write(tmp_path)
    (folder / "val" / "n01").mkdir()
    (folder / "val" / "images" / "val_2.JPEG").rename(folder / "val" / "n01" / "val_2.JPEG")
    with pytest.raises(
        ValueError, match=f"{folder / 'val'}: 5 images are still in .*finish moving"
    ):
        load(folder)


def test_a_set_without_images_is_refused(tmp_path):
    folder = write(tmp_path, moved=True)
    for path in (folder / "val").glob("**/*.JPEG"):
        path.unlink()
    with pytest.raises(ValueError, match="class n01 has 0 images, others 0"):
        load(folder)
