"""Keras' files, as Keras 3.15 writes them, written by hand."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest

from jaxsnn.errors import UserError
from jaxsnn.exchange.read import read_weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra keras)")

KERNEL = np.arange(36, dtype=np.float32).reshape(3, 3, 1, 4)
SECOND = -np.arange(144, dtype=np.float32).reshape(3, 3, 4, 4)
NORM = [np.full(4, value, np.float32) for value in (1, 2, 3, 4)]
DENSE = np.ones((4, 2), np.float32)


def layer(kind, name, **settings):
    return {"class_name": kind, "config": {"name": name, **settings}}


LAYERS = [
    layer("InputLayer", "input_layer"),
    layer("Conv2D", "zebra", data_format="channels_last"),
    layer("BatchNormalization", "batch_normalization", epsilon=0.002, scale=True, center=True),
    layer("Conv2D", "ant", data_format="channels_last"),
    layer("BatchNormalization", "last_norm", epsilon=0.003, scale=False, center=True),
    layer("Flatten", "flatten"),
    layer("Dense", "dense_7"),
]
SEQUENTIAL = {"class_name": "Sequential", "config": {"name": "net", "layers": LAYERS}}
NUMBERED = {
    "conv2d": ("zebra", [KERNEL]),
    "batch_normalization": ("batch_normalization", NORM),
    "conv2d_1": ("ant", [SECOND, np.zeros(4, np.float32)]),
    "batch_normalization_1": ("last_norm", NORM[1:]),
    "dense": ("dense_7", [DENSE, np.ones(2, np.float32)]),
    "flatten": ("flatten", []),
}
NAMES = [
    "zebra/kernel",
    *(f"batch_normalization/{name}" for name in ("gamma", "beta", "moving_mean")),
    "batch_normalization/moving_variance",
    *("ant/kernel", "ant/bias"),
    *(f"last_norm/{name}" for name in ("beta", "moving_mean", "moving_variance")),
    *("dense_7/kernel", "dense_7/bias"),
]


def numbered(groups=NUMBERED, *, root="layers", named=True):
    """``model.weights.h5``: arrays by number, with the layer's name beside them."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for path, (name, arrays) in groups.items():
            group = file.create_group(f"{root}/{path}/vars".lstrip("/"))
            if named:
                group.attrs["name"] = name
            for number, array in enumerate(arrays):
                group[str(number)] = array
        file["optimizer/vars/0"] = np.float32([0.1])
        file["layers/dropout/seed_generator/vars/0"] = np.uint32([1, 2])
    return content.getvalue()


def zipped(weights, config=SEQUENTIAL):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("metadata.json", b"{}")
        archive.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return content.getvalue()


def older(*, suffix=":0", config=SEQUENTIAL, pieces=False):
    """``model.save("net.h5")``: lists of names in the attributes."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        names = ["zebra", "batch_normalization", "ant", "last_norm", "flatten", "dense_7"]
        if pieces:
            group.attrs["layer_names0"] = [name.encode() for name in names[:2]]
            group.attrs["layer_names1"] = [name.encode() for name in names[2:]]
        else:
            group.attrs["layer_names"] = names
        arrays = [array for _, (_, arrays) in NUMBERED.items() for array in arrays]
        inside = {name: [] for name in names}
        for name, array in zip(NAMES, arrays, strict=True):
            path = f"net/{name}{suffix}"
            inside[name.split("/")[0]].append(path)
            group[f"{name.split('/')[0]}/{path}"] = array
        for name, paths in inside.items():
            group.require_group(name).attrs["weight_names"] = paths
    return content.getvalue()


@pytest.fixture
def read(tmp_path):
    """Read content as a file; its ending says nothing."""

    def read(content, **options):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return read_weights(path, **options)

    return read


@pytest.mark.parametrize("content", [zipped(numbered()), older(), older(suffix="", pieces=True)])
def test_arrays_have_the_names_and_the_order_of_the_layers(read, content):
    weights = read(content)
    assert list(weights) == NAMES
    assert weights.layout == "keras"
    assert weights.ordered
    assert weights.epsilons == {"batch_normalization": 0.002, "last_norm": 0.003}
    np.testing.assert_array_equal(weights["zebra/kernel"], KERNEL, strict=True)
    np.testing.assert_array_equal(weights["ant/kernel"], SECOND, strict=True)
    np.testing.assert_array_equal(weights["last_norm/moving_variance"], NORM[3], strict=True)
    np.testing.assert_array_equal(weights["dense_7/kernel"], DENSE, strict=True)


def test_weights_alone_have_the_order_of_their_numbers(read):
    """``save_weights``: nothing says that ``last_norm`` has no gamma, so it keeps its numbers."""
    weights = read(numbered())
    assert weights.ordered
    kernels = [name for name in weights if name.endswith("kernel")]
    assert kernels == ["zebra/kernel", "ant/kernel", "dense_7/kernel"]
    assert [name for name in weights if name.startswith("last")] == [
        f"last_norm/vars/{number}" for number in range(3)
    ]


def test_ten_layers_are_in_order(read):
    groups = {f"dense_{n}" if n else "dense": ("", [DENSE]) for n in range(12)}
    weights = read(numbered(groups, named=False))
    assert list(weights) == [f"layers/dense{f'_{n}' if n else ''}/kernel" for n in range(12)]


def test_layers_that_a_class_names_itself_are_in_no_order(read):
    weights = read(numbered({"zebra": ("", [KERNEL]), "ant": ("", [SECOND])}, root="", named=False))
    assert list(weights) == ["ant/kernel", "zebra/kernel"]
    assert not weights.ordered


def test_a_network_inside_a_network(read):
    inner = {"class_name": "Functional", "config": {"name": "inner", "layers": LAYERS[1:3]}}
    outer = {"config": {"name": "net", "layers": [LAYERS[0], inner, *LAYERS[3:]]}}
    groups = {f"functional/layers/{path}": NUMBERED[path] for path in list(NUMBERED)[:2]}
    groups |= {path: NUMBERED[path] for path in list(NUMBERED)[2:]}
    assert list(read(zipped(numbered(groups), outer))) == NAMES


@pytest.mark.parametrize(
    ("path", "kind", "shape", "names"),
    [
        ("conv2d_transpose", "Conv2DTranspose", (3, 3, 4, 4), ["t/Conv2DTranspose.vars/0"]),
        ("depthwise_conv2d", "DepthwiseConv2D", (3, 3, 4, 1), ["t/DepthwiseConv2D.vars/0"]),
        ("embedding", "Embedding", (10, 4), ["t/Embedding.vars/0"]),
        ("strange", "Strange", (3, 3, 4, 4), ["t/Strange.kernel"]),
    ],
)
def test_other_kinds_of_layers_are_not_taken_for_convolutions(read, path, kind, shape, names):
    groups = {path: ("t", [np.zeros(shape, np.float32)])}
    config = {"config": {"layers": [layer(kind, "t")]}}
    assert list(read(zipped(numbered(groups), config))) == names


def test_channels_first_is_refused(read):
    config = {"config": {"layers": [layer("Conv2D", "zebra", data_format="channels_first")]}}
    with pytest.raises(UserError, match=r"layer 'zebra': channels_first"):
        read(zipped(numbered(), config))


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("Conv2D", {"dilation_rate": [2, 2]}, "a dilated convolution"),
        ("Dense", {"activation": "tanh"}, "'tanh' is no activation that is converted"),
        ("LeakyReLU", {}, "'LeakyReLU' is no activation that is converted"),
    ],
)
def test_layers_that_would_be_others_are_refused(read, kind, settings, reason):
    config = {"config": {"layers": [layer(kind, "zebra", **settings)]}}
    with pytest.raises(UserError, match=f"layer 'zebra': {reason}"):
        read(zipped(numbered(), config))
    usual = layer("Conv2D", "zebra", dilation_rate=[1, 1], activation="relu")
    assert list(read(zipped(numbered(), {"config": {"layers": [usual]}})))


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{", b"null", b'{"config": {"layers": 5}}', b"[" * 100_000]
)
def test_a_damaged_description(read, config):
    with pytest.raises(UserError, match=r"damaged config.json") as caught:
        read(zipped(numbered(), config))
    assert "\n" not in str(caught.value)


def test_a_listed_array_that_is_missing(read):
    content = io.BytesIO(older())
    with h5py.File(content, "a") as file:
        del file["model_weights/ant/net/ant/bias:0"]
    with pytest.raises(UserError, match=r"'net/ant/bias:0': listed but missing"):
        read(content.getvalue())


def hdf5(write):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def external_link(file):
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(file):
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers")


def external_storage(file):
    external = [("/etc/hostname", 0, 8)]
    file.create_dataset("layers/dense/vars/0", (1, 2), np.float32, external=external)


def virtual(file):
    layout = h5py.VirtualLayout((1, 2), np.float32)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (1, 2))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def enormous(file):
    file.create_dataset("layers/dense/vars/0", (2**30, 2**10), np.float32, chunks=(1, 1))


def texts(file):
    file["layers/dense/vars/0"] = ["text"]


def itself(file):
    file["layers/again"] = file["/"]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (external_link, "'layers/dense/vars/0': leads elsewhere"),
        (soft_link, "'layers/dense/vars/0': leads elsewhere"),
        (external_storage, "'layers/dense/vars/0': its numbers are in another file"),
        (virtual, "'layers/dense/vars/0': its numbers are in another file"),
        (enormous, r"'layers/dense/vars/0': needs 4,398,046,511,104 bytes"),
        (texts, "'layers/dense/vars/0': dtype object"),
    ],
)
def test_hostile_hdf5(read, write, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(hdf5(write))
    assert "\n" not in str(caught.value)


def test_groups_inside_themselves_end(read, monkeypatch):
    """Before their paths fill the memory: a hundred thousand of them would take gigabytes."""
    monkeypatch.setattr("jaxsnn.exchange.hdf5.MOST", 100)
    with pytest.raises(UserError, match="groups inside themselves, or in 64 others"):
        read(hdf5(lambda file: (file.create_group("layers"), itself(file))))


def test_paths_are_counted_as_memory(read):
    def long_names(file):
        group = file.create_group("a" * 20_000)
        for number in range(15):
            group.create_group(str(number))

    with pytest.raises(UserError, match=r"needs 20,00\d bytes, more than is left"):
        read(hdf5(long_names), limit=200_000)


def test_a_file_of_something_else(read):
    with pytest.raises(UserError, match=r"weights\.\w+: Keras without arrays of a network"):
        read(hdf5(lambda file: file.create_dataset("node/vars/" + "1" * 5000, data=np.zeros(1))))


def test_a_description_that_is_no_text(read):
    content = older().replace(b'"class_name"', b'"class_\xf9ame"')
    assert b"\xf9" in content
    assert len(read(content)) == len(NAMES)  # of layers whose kind is not said


def test_an_epsilon_may_be_a_whole_number(read):
    layers = [layer("BatchNormalization", "batch_normalization", epsilon=1)]
    groups = {"batch_normalization": NUMBERED["batch_normalization"]}
    weights = read(zipped(numbered(groups), {"config": {"layers": layers}}))
    assert weights.epsilons == {"batch_normalization": 1.0}


def test_a_cut_file(read):
    for whole in (numbered(), zipped(numbered())):
        for length in range(0, len(whole), 97):
            with pytest.raises(UserError) as caught:
                read(whole[:length])
            assert "\n" not in str(caught.value)


def test_without_h5py_the_extra_is_named(read, monkeypatch):
    content = numbered()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"h5py, which is not installed: pip install '\.\[keras\]'"):
        read(content)
