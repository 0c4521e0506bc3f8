"""Networks of torch, their weights fitted into our trees: the same logits, layer by layer."""

import numpy as np
import pytest

from jaxsnn.arch.plan import parse
from jaxsnn.exchange.pytorch import from_torch

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch(request):
    """The package of the original."""
    if not request.config.getoption("--require-parity"):
        pytest.importorskip("torch", reason="torch is not installed (extra parity)")
    import torch

    torch.manual_seed(0)
    return torch


def settled(torch, model, images):
    """The model in evaluation, with running statistics of its own."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_var, 0.2, 2.0)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.weight)
    model.eval()
    with torch.no_grad():
        return model(images).numpy()


def plain(nn):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8, eps=1e-3),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 10),
    )


def test_a_network_of_every_layer(torch, tmp_path):
    arch = parse("4C3p1-MP2-6C3s2x-AP2-8", head_bias=True, input_shape=(20, 12, 2))
    model, images = plain(torch.nn), torch.randn(5, 2, 20, 12)
    logits = settled(torch, model, images)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    reference = (images.numpy(), logits)
    for source in (tmp_path / "net.pt", model.state_dict()):
        from_torch(source, arch, epsilon=1e-3, reference=reference)


def test_half_precision_is_read_exactly(torch):
    arch = parse("4C3b", head_bias=True, input_shape=(4, 4, 1), classes=2)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(16, 2)).bfloat16()
    tree = from_torch(model.state_dict(), arch).variables["params"]
    wanted = model[1].weight.detach().float().numpy()
    kernel = tree["readout"]["kernel"].reshape(2, 2, 4, 2)
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1).reshape(2, 16), wanted, strict=True)


def test_variables_outlive_further_training(torch):
    arch = parse("3x", input_shape=(1, 1, 2), classes=2)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, False), torch.nn.Linear(3, 2, False))
    tree = from_torch(model.state_dict(), arch).variables["params"]
    before = tree["dense1"]["kernel"].copy()
    with torch.no_grad():
        model[0].weight.zero_()
    np.testing.assert_array_equal(tree["dense1"]["kernel"], before)
