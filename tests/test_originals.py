"""Every command of the pages below docs/systems, on digits, and the files that it promises."""

import re
import shlex

import pytest
from experiment_runs import LIMITS, ROOT, TINY, run

from jaxsnn.arch import zoo
from jaxsnn.arch.plan import parse
from jaxsnn.systems import negative_spikes
from jaxsnn.systems.command_line import STAGES
from jaxsnn.systems.fast_snn import system as fast_snn_system

PAGES = sorted((ROOT / "docs/systems").glob("*.md"))
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


def commands(system):
    """Rows (ours, files that it writes) of the table of commands of one system."""
    start, end = f"<!-- commands: {system} -->\n", "<!-- /commands -->"
    assert TEXT.count(start) == 1
    table = TEXT.split(start)[1].split(end)[0]
    for row in table.strip().splitlines()[2:]:
        _, ours, writes = (cell.strip() for cell in row.strip("|").split(" | "))
        match = re.fullmatch(r"`python (experiments/\w+\.py) (.*)`", ours)
        assert match, f"{ours} is no command of an experiment"
        yield match[1], match[2], re.findall(r"`([\w./]+/[\w./-]+)`", writes)


FEW = ("--limit-train", "16", "--limit-test", "2", "--batch-size", "8")
SMALL = {  # limits that keep a system's commands short
    "scatter_gather_lenet": (*TINY, *FEW),
    "negative_spikes_cnn1": (*TINY, *FEW),
    "negative_spikes_cnn2": (*TINY, *FEW),
    "negative_spikes_mnist": (*TINY, *FEW),
    "surrogate_csnn": (*LIMITS, *FEW, "--limit-test", "8", "--num_steps", "4"),
    "fast_snn": (*LIMITS, *FEW, "--limit-train", "10", "--certify", "2"),
    "bayesian_spike_fusion": (
        *(*LIMITS, *FEW, "--steps", "20", "--tune_images", "6"),
        *("--simulation_batch", "4", "--calibration", "6"),
    ),
}
EVENTS = ("--frames", "6")  # and those on events
# Small networks stand in for the whole ones: an eighth of the channels, and where every layer
# compiles programs of its own fewer layers. The checks on real data run CNN 1, CNN 2 and AlexNet.
CNN1 = "12C3same-32C3same-P2-48C3same-P2-48C3same-32C3same-P2-128-128"
CNN2 = "16C3same-32C3same-P2-64C3same-P2-128C3same-64C3same-P2-128-64"
CIFAR = {"input_shape": zoo.cnn1.input_shape, "pool": "conv"}
ALEXNET = parse("8C3s2p1-16C3s2p1-16C3s2p1-32nb", input_shape=(32, 32, 1), head_bias=True)
VGG19 = "8C3p1-8C3p1-16C3s2p1-16C3p1-32C3s2p1-32C3p1-64C3s2p1-64C3p1-64C3s2p1-64C3p1"


def together(system):
    """The rows with the files of equal commands together: one command draws several figures."""
    result = {}
    for script, words, files in commands(system):
        result.setdefault((script, words), []).extend(files)
    return [(*command, files) for command, files in result.items()]


ROWS = [(system, number, *row) for system in SMALL for number, row in enumerate(together(system))]

_TRAINED = "--init result/alex_{}bit/model_best.pth.tar"
FAST_SNN = (
    "python MNIST/main.py --arch alex --bit 32 --wd 5e-4`",
    f"python MNIST/main.py --arch alex --bit 4 --wd 1e-4  --lr 4e-2 {_TRAINED.format(32)}`",
    f"python MNIST/main.py --arch alex --bit 3 --wd 1e-4  --lr 4e-2 {_TRAINED.format(4)}`",
    f"python MNIST/main.py --arch alex --bit 2 --wd 3e-5  --lr 4e-2 {_TRAINED.format(3)}`",
    *(
        f"python MNIST/{script} --arch alex --bit {bit} {flags} {_TRAINED.format(bit)}`"
        for script, flags in (("snn.py", "-e -u"), ("snn.py", "-e"), ("snn_ft.py", "--force"))
        for bit in (3, 2)
    ),
    *(
        f"python LFW/snn_ft.py --arch alex --bit {bit} --force --init result_LFW/alex_{bit}bit/"
        for bit in (4, 3)
    ),
)


BAYESIAN = (
    "python train.py cifar10 vgg19 --ic_index 6 --data_path /path/to/dataset/directory --root ",
    "python ann2snn.py /path/to/trained_model_saved --percentile 0.999`",
    "python tune_hyperparams.py /path/to/trained_model_saved`",
    "python simulate_snn.py /path/to/trained_model_saved`",
    "python plot.py {/path/to/trained_model_saved}/snn_xxx_yyy`",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {system: tmp_path_factory.mktemp(system) for system in SMALL}


def test_the_tables_have_the_commands_of_the_originals():
    # two modes of the training scripts, spiking scripts with and without noise, the figures
    for words in (
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume False --mode 'training'",
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume True --mode 'inference'",
        "Spiking_LeNet_MNIST.py --k 0 --B 1 --noise_ratio 0`",
        "FP32_LeNet_MNIST.py",
        "Quant_CNN1_CIFAR10.py --k 0 --resume False --learning_rate 0.001 --mode 'training'",
        "Quant_CNN1_CIFAR10.py --k 0 --resume True --mode 'inference'",
        "Quant_CNN2_CIFAR10.py --k 0 --resume False --learning_rate 0.001 --mode 'training'",
        "Spiking_CNN1_CIFAR10.py --k 0`",
        "Spiking_CNN2_CIFAR10.py --k 0`",
        "python accuracy_speed.py",
        "python sparsity.py",
        "python sops.py",
        "CUDA_VISIBLE_DEVICES=0 python scripts/train.py`",
        "CUDA_VISIBLE_DEVICES=0 python scripts/train.py exp_id=spike data.spike=true`",
        *FAST_SNN,
        *BAYESIAN,
    ):
        assert words in TEXT
    for system in SMALL:
        used = {words.split()[0] for name, _, _, words, _ in ROWS if name == system}
        stages = {"surrogate_csnn": "all", "fast_snn": "finetune"}  # one script, stages of its own
        assert stages.get(system, "simulate") in used & {*STAGES, "finetune"}
    assert all((ROOT / script).is_file() for _, _, script, _, _ in ROWS)


def test_an_override_of_an_original_stands_in_our_command_too():
    """``name=value`` is taken as it is; where the original leaves a path open, ours names one."""
    text = TEXT.split("<!-- commands: surrogate_csnn -->\n")[1]
    pattern, seen = r"(?<!\w)([a-z][a-z_.]*)=([^ `]+)", []
    for row in text.split("<!-- /commands -->")[0].splitlines():
        original, ours, *_ = (re.findall(pattern, cell) for cell in (*row.split(" | "), ""))
        assert [name for name, _ in original] in ([], [name for name, _ in ours])
        assert all(value in ("...", dict(ours)[name]) for name, value in original)
        seen += [name for name, _ in original]
    assert {"data.spike", "model.checkpoint", "train.lr_step"} <= set(seen)


# One folder per system, in the order of its table: what is trained first is used by the rest.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "number"), [row[:2] for row in ROWS], ids=[f"{row[0]}: {row[3]}" for row in ROWS]
)
def test_a_command_writes_what_the_table_says(system, number, folders, capsys, monkeypatch):
    monkeypatch.setitem(negative_spikes.ARCHITECTURES, "cnn1", parse(CNN1, **CIFAR))
    monkeypatch.setitem(negative_spikes.ARCHITECTURES, "cnn2", parse(CNN2, **CIFAR))
    monkeypatch.setitem(fast_snn_system.ARCHITECTURES, "alex", ALEXNET)
    monkeypatch.setitem(zoo.BSF, "vgg19", VGG19)
    script, words, files = next(row[2:] for row in ROWS if row[:2] == (system, number))
    out = folders[system]
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    script = script.split("/")[1][:-3]
    # an earlier run, named by its usual place
    words = re.sub(rf"runs/{script}(_lfw)?", str(out), words)
    if system == "bayesian_spike_fusion":  # the run's folder is named after its data set
        words = words.replace("/cifar10_", "/digits_")
        files = [name.replace("cifar10_", "digits_") for name in files]
    few = (*SMALL[system], *EVENTS) if "data.spike=true" in words else SMALL[system]
    assert run(*shlex.split(words), out=out, tiny=few, script=script) == 0
    for name in files:
        assert (out / name).exists(), f"{words} did not write {name}"
    if not files:
        assert re.search(r"test accuracy \d+\.\d+%", capsys.readouterr().out)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
