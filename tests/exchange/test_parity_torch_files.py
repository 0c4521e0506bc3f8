"""What torch itself writes, in both containers, is read as torch reads it."""

import numpy as np
import pytest

from jaxsnn.errors import UserError
from jaxsnn.exchange.read import read_weights

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch(request):
    """The package that wrote the files."""
    if not request.config.getoption("--require-parity"):
        pytest.importorskip("torch", reason="torch is not installed (extra parity)")
    import torch

    torch.manual_seed(0)
    return torch


DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
    *("bool", "complex64", "complex128"),
)
NEWER = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")


def values(torch, tensor):
    """A tensor as NumPy has it."""
    detached = tensor.detach()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float64, torch.float16):
        detached = detached.float()
    return detached.contiguous().numpy()


def odd_tensors(torch):
    """Views, transposes, shared storages, scalars, empty ones, parameters."""
    base = torch.randn(4, 5, 6)
    linear = torch.nn.Linear(3, 4)
    attributed = torch.nn.Parameter(torch.randn(2))
    attributed.note = "attributes are pickled by another function"
    return {
        "base": base,
        "view": base[1:3, ::2, 3],
        "transposed": base.permute(2, 0, 1),
        "expanded": base[0, 0].expand(3, 6),
        "row": base[2],
        "scalar": torch.tensor(3.5),
        "scalar_view": base[1, 2, 3],
        "empty": torch.zeros(0, 3),
        "empty_view": base[:, 5:],
        "parameter": linear.weight,
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "attributed": attributed,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "one": torch.ones(1, 1, 1, 1),
        "buffer": torch.tensor(7),
    }


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, torch, tmp_path):
    """Write a value and return the path of the file."""

    def save(value):
        path = tmp_path / "net.pt"
        torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


def test_odd_tensors(torch, saved):
    tensors = odd_tensors(torch)
    weights = read_weights(saved(tensors))
    assert list(weights) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(weights[name], values(torch, tensor), strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(torch, saved, dtype):
    tensor = (torch.randn(7, 3) * 5).to(getattr(torch, dtype))
    weights = read_weights(saved({"plain": tensor, "turned": tensor.T}))
    np.testing.assert_array_equal(weights["plain"], values(torch, tensor), strict=True)
    np.testing.assert_array_equal(weights["turned"], values(torch, tensor.T), strict=True)


@pytest.mark.parametrize("dtype", NEWER)
def test_dtypes_without_a_storage_class(torch, saved, dtype):
    tensor = (torch.rand(7, 3) * 5).to(getattr(torch, dtype))
    weights = read_weights(saved({"plain": tensor, "turned": tensor.T}))
    np.testing.assert_array_equal(weights["turned"], values(torch, tensor.T), strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles(torch, tmp_path, protocol):
    torch.save({"w": torch.arange(3)}, tmp_path / "net.pt", pickle_protocol=protocol)
    np.testing.assert_array_equal(read_weights(tmp_path / "net.pt")["w"], [0, 1, 2])


def test_the_checkpoint_of_a_training(torch, saved):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 1, 5, 5)).sum().backward()
    optimiser.step()
    path = saved(
        {
            "epoch": 3,
            "model_state_dict": torch.nn.DataParallel(model).state_dict(),
            "optimizer_state_dict": optimiser.state_dict(),
            "loss": torch.tensor(0.5),
            "history": [0.1, (0.2, "x")],
        }
    )
    weights = read_weights(path)
    assert weights.skipped == ("epoch", "optimizer_state_dict", "loss", "history")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(weights[name], values(torch, tensor), strict=True)


def test_whole_modules_and_other_objects_are_refused(torch, saved):
    with pytest.raises(UserError, match=r"refused: it asks for torch\.nn\.modules"):
        read_weights(saved(torch.nn.Linear(2, 3)))
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(UserError, match=r"refused: it asks for torch\._utils\._rebuild_sparse"):
        read_weights(saved({"w": sparse}))
    with pytest.raises(UserError, match="conjugated"):
        read_weights(saved({"w": torch.ones(2, dtype=torch.complex64).conj()}))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compiled_programs_are_refused(torch, tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), path)
    with pytest.raises(UserError, match="TorchScript"):
        read_weights(path)


def test_archives_without_check_sums_are_refused_with_the_remedy(torch, tmp_path):
    path = tmp_path / "net.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(1000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(UserError, match=r"set_crc32_options\(True\)"):
        read_weights(path)


def test_weights_of_safetensors(torch, tmp_path):
    from safetensors.torch import save_file

    tensors = {
        "b.10.w": torch.randn(2, 3),
        "b.9.w": torch.randn(3).half(),
        "a.w": torch.randn(4).bfloat16(),
        "scalar": torch.tensor(2),
    }
    save_file(tensors, tmp_path / "net.safetensors")
    weights = read_weights(tmp_path / "net.safetensors")
    assert list(weights) == ["a.w", "b.9.w", "b.10.w", "scalar"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(weights[name], values(torch, tensor), strict=True)
