"""The command with a PyTorch module, whose architecture nobody writes down."""

import json

import numpy as np
import pytest

from jaxsnn.io.arrays import flatten, load_arrays
from jaxsnn.systems.bring_your_own.network import read_network
from jaxsnn.systems.bring_your_own.system import main
from jaxsnn.systems.settings.bring_your_own import BringYourOwn

pytestmark = pytest.mark.parity

CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 7 * 7, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return self.head(x.flatten(1))
"""


@pytest.fixture
def files(request, tmp_path):
    """The module's code and its weights."""
    if not request.config.getoption("--require-parity"):
        pytest.importorskip("torch", reason="torch is not installed (extra parity)")
    import torch

    code, weights = tmp_path / "their_code.py", tmp_path / "weights.pt"
    code.write_text(CODE)
    names = {}
    exec(CODE, names)
    torch.manual_seed(0)
    torch.save(names["Net"]().state_dict(), weights)
    return code, weights


def test_a_module_gives_the_network_that_the_notation_does(files, tmp_path):
    code, weights = files
    flags = ("--data", "digits", "--limit-test", "20", "--certify", "5", "--calibration", "20")
    method = ("--method", "negative_spikes", "--k", "3", "--settling-steps", "200")
    shown = {"module": f"{code}:Net", "arch": "4C3s2p1-MP2"}
    kept = {}
    for name, value in shown.items():
        out = tmp_path / name
        assert not main([str(weights), f"--{name}", value, *flags, *method, "--out", str(out)])
        assert json.loads((out / "results.json").read_text())["equality"] == "exact after settling"
        kept[name] = load_arrays(out / "snn.npz")[0]
    assert kept["module"].keys() == kept["arch"].keys()
    for name, array in kept["arch"].items():
        np.testing.assert_array_equal(kept["module"][name], array, err_msg=name)


def test_the_checkpoint_of_a_module_that_holds_the_network_is_taken(files, tmp_path):
    import torch

    code, weights = files
    state, larger = torch.load(weights), tmp_path / "epoch=3.ckpt"
    named = {f"model.{name}": tensor for name, tensor in state.items()}
    beside = {"loss.weight": torch.ones(10)}  # the larger module has more than the network
    whole = {"epoch": 3, "state_dict": beside | named, "hyper_parameters": {"lr": 0.1}}
    torch.save(whole, larger)
    brought = [
        read_network(BringYourOwn(weights=str(each), module=f"{code}:Net"), (28, 28, 1), 10)
        for each in (weights, larger)
    ]
    for name, array in flatten(brought[0].variables).items():
        np.testing.assert_array_equal(flatten(brought[1].variables)[name], array, err_msg=name)


def test_weights_of_another_module_are_refused_in_one_line(files, tmp_path, capsys):
    code, weights = files
    code.write_text(CODE.replace("nn.Conv2d(1, 4", "nn.Conv2d(1, 5"))
    assert main([str(weights), "--module", f"{code}:Net", "--data", "digits"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "does not fit --module" in message
    assert (
        "arrays are of another shape (first.weight (4, 1, 3, 3) for (5, 1, 3, 3), ...)" in message
    )
    code.write_text(CODE.replace("self.norm", "self.bn"))
    assert main([str(weights), "--module", f"{code}:Net", "--data", "digits"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "5 arrays are missing in the file (bn.weight, ...); 5 arrays are unknown" in message


def test_what_does_not_fit_in_a_larger_module_is_named_as_the_module_does(files, tmp_path, capsys):
    import torch

    code, weights = files
    named = {f"model.{name}": tensor for name, tensor in torch.load(weights).items()}
    named["model.head.weight"] = torch.zeros(100, 4 * 7 * 7)
    torch.save({"state_dict": named}, tmp_path / "hundred.ckpt")
    flags = ("--module", f"{code}:Net", "--data", "digits")
    assert main([str(tmp_path / "hundred.ckpt"), *flags]) == 2
    message = capsys.readouterr().err
    assert "1 arrays are of another shape (head.weight (100, 196) for (10, 196))" in message
    assert "missing" not in message


def test_layers_that_find_their_inputs_by_themselves_are_read(files):
    code, weights = files
    plain = read_network(BringYourOwn(weights=str(weights), module=f"{code}:Net"), (28, 28, 1), 10)
    code.write_text(CODE.replace("nn.Linear(4 * 7 * 7, 10)", "nn.LazyLinear(10)"))
    lazy = read_network(BringYourOwn(weights=str(weights), module=f"{code}:Net"), (28, 28, 1), 10)
    for name, array in flatten(plain.variables).items():
        np.testing.assert_array_equal(flatten(lazy.variables)[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import sys\nsys.exit()", "raises SystemExit at line 2: SystemExit; what it does as a"),
        ("import jaxsnn.nothing", "raises ModuleNotFoundError at line 1: No module named"),
        ("from torch import nn; Net = lambda: nn.ReLU(2, 3)", "raises TypeError at line 1: "),
        ("def Net():\n    raise ValueError", "raises ValueError at line 2: ValueError; can Python"),
    ],
)
def test_code_that_fails_is_named_in_one_line(files, line, reason, capsys, monkeypatch):
    code, weights = files
    code.write_text(line)
    monkeypatch.chdir(code.parent)
    assert main([str(weights), "--module", f"{code.name}:Net", "--data", "digits"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"their_code.py {reason}" in message
