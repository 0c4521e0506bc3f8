"""The command line takes the originals' spellings; config.json is read strictly."""

import dataclasses
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.errors import UserError
from jaxsnn.systems.command_line import STAGES, flags, normalise, parse_command
from jaxsnn.systems.config_file import differences, from_json, to_json
from jaxsnn.systems.settings.base import Common
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings.conversion import (
    LeNetScatter,
    NegativeSpikesCnn1,
    NegativeSpikesCnn2,
    NegativeSpikesMnist,
)
from jaxsnn.training.recipe import PARTS, RECIPES


def parsed(command, config_class=LeNetScatter):
    """Split a command as a shell does, and read it."""
    return parse_command(config_class, shlex.split(command))


@dataclass(frozen=True)
class Aliased(Common):
    """Settings with flags that aliases point to, and one that may be left open."""

    arch: str = "alex"
    """Network."""
    unsigned: bool = False
    """Unsigned neurons."""
    num_epochs: int = 1
    """Epochs per layer."""
    tags: tuple[str, ...] = ()
    """Words."""
    colours: bool | None = None
    """Colours."""


# The flags of every command in the original's README; a shell hands over the second command's
# stray words, a Windows prompt the quotes.
@pytest.mark.parametrize(
    ("command", "stage", "fields"),
    [
        (
            "--k 0 --B 1 --resume False --mode 'training'",
            "train",
            {"k": 0, "B": 1, "resume": False, "mode": "training"},
        ),
        (
            "--k 0 --B 1 --resume True --mode 'inference'",
            "evaluate",
            {"k": 0, "B": 1, "resume": True, "mode": "inference"},
        ),
        ("--k 0 --B 1 --noise_ratio 0", "all", {"k": 0, "B": 1, "noise_ratio": ()}),
    ],
)
def test_the_originals_commands(command, stage, fields):
    expected = dataclasses.replace(LeNetScatter(), **fields)
    assert parsed(command) == (stage, expected)
    unsplit = command.split()  # the quotes stay, as under a shell that does not know them
    assert parse_command(LeNetScatter, unsplit) == (stage, expected)


@pytest.mark.parametrize(
    ("command", "stage", "fields"),
    [
        (
            "--k 0 --resume False --learning_rate 0.001 --mode 'training'",
            "train",
            {"k": 0, "resume": False, "learning_rate": 0.001, "mode": "training"},
        ),
        (
            "--k 0 --resume True --mode 'inference'",
            "evaluate",
            {"k": 0, "resume": True, "mode": "inference"},
        ),
        ("--k 0", "all", {"k": 0}),
        (
            "--resume True --learning_rate 0.0001",
            "all",
            {"resume": True, "learning_rate": 0.0001},
        ),
    ],
)
def test_the_commands_of_the_cifar_original(command, stage, fields):
    expected = NegativeSpikesCnn1(**fields)
    assert parsed(command, NegativeSpikesCnn1) == (stage, expected)


def test_defaults_of_the_negative_spikes_experiments():
    one, two = NegativeSpikesCnn1(), NegativeSpikesCnn2(dataset="digits")
    assert (one.dataset, one.arch, one.epochs, one.out) == (
        *("cifar10", "cnn1", 16),
        "runs/cifar10_cnn1",
    )
    assert (one.recipe, NegativeSpikesCnn1(recipe="paper").epochs) == ("fast", 30)
    assert (two.arch, two.epochs, two.out) == ("cnn2", 3, "runs/cifar10_cnn2_digits")
    assert one.noise_ratio == ()  # the instructions of the original mean a run without noise
    assert (one.steps, one.certify, one.weight_bits) == (None, 1000, 7)
    mnist = NegativeSpikesMnist(dataset="fashion_mnist", arch="mlp", k=2)
    assert (mnist.setting, mnist.out) == ("mlp_k2", "runs/mnist_negative_spikes_fashion_mnist")
    assert NegativeSpikesMnist(precision="fp32").setting == "lenet_fp32"
    assert NegativeSpikesMnist().certify is None
    assert two.compared == ("runs/cifar10_cnn1_digits",)
    for elsewhere in (".", "/", "runs/mine"):  # no folder of the other network to be guessed
        assert NegativeSpikesCnn1(out=elsewhere).compared == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"certify": 0}, "certify is 0"),
        ({"weight_bits": 0}, "weight_bits is 0"),
        ({"weight_bits": 25}, "weight_bits is 25"),
        ({"k": -1}, "k is -1"),
        ({"noise_ratio": (1.5,)}, "noise_ratio is"),
    ],
)
def test_negative_spikes_refuse_values_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        NegativeSpikesCnn2(**fields)


@pytest.mark.parametrize(
    "command",
    [
        "--learning-rate 0.01 --resume --data-dir d",
        "--learning_rate 0.01 --resume true --data_dir d",
        "--lr=0.01 --resume=TRUE --data_path=d",
        "learning_rate=1e-2 resume=true data-path=d",
        "--lr 5 --lr .01 --resume False --resume True --data-dir d",
        "-lr 0.01 --resume 'True' --data-dir 'd'",
    ],
)
def test_spellings_of_one_command(command):
    assert parsed(command)[1] == LeNetScatter(learning_rate=0.01, resume=True, data_dir="d")


def test_defaults():
    stage, config = parsed("")
    assert stage == "all"
    assert (config.k, config.B, config.noise_ratio, config.noise_seeds) == (1, 2, (0.1, 0.2), 5)
    assert (config.epochs, config.batch_size, config.learning_rate) == (15, 128, 1e-3)
    assert (config.dataset, config.schedule, config.validation) == ("mnist", "cosine", None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_named_stage_comes_first_and_wins_over_mode(stage):
    assert parsed(f"{stage} --mode training")[0] == stage


@pytest.mark.parametrize("alias", ["--u", "-u", "--unsigned", "unsigned=true", "-u True"])
def test_aliases_of_a_switch(alias):
    assert parsed(f"{alias} -a vgg -b 7 -n 3", Aliased)[1] == Aliased(
        unsigned=True, arch="vgg", batch_size=7, num_epochs=3
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", None),
        ("--colours", True),
        ("--colours --tags a", True),
        ("--colours true", True),
        ("colours=false", False),
        ("--colours None", None),
    ],
)
def test_a_switch_that_may_be_left_open(command, expected):
    assert parsed(command, Aliased)[1].colours is expected


def test_an_alias_holds_only_where_its_flag_exists():
    with pytest.raises(ValueError, match="unknown flag 'u'"):
        normalise(LeNetScatter, ["-u"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lerning_rate", "1"], "unknown flag 'lerning_rate'; nearest: learning_rate"),
        (["--K", "1"], "unknown flag 'K'; nearest: k"),
        (["--b", "1", "--noise-ration", "0"], "nearest: noise_ratio"),
        (["bach_size=1"], "nearest: batch_size"),
        (["--qqqq"], "known: dataset, data_dir, out"),
        (["--k"], "--k wants a value"),
        (["--k", "--B", "1"], "--k wants a value"),
        (["--noise_ratio", "--k", "1"], "--noise_ratio wants a value"),
        (["--k", "1", "train"], "'train' belongs to no flag"),
        (["--resume", "yes"], "'yes' belongs to no flag"),
        (["--resume=yes"], "--resume=yes is neither true nor false"),
        (["-1"], "'-1' belongs to no flag"),
        (["--"], "'--' belongs to no flag"),
    ],
)
def test_what_cannot_be_understood_is_named(words, message, capsys):
    with pytest.raises(ValueError, match=message):
        normalise(LeNetScatter, words)
    with pytest.raises(SystemExit) as stop:
        parse_command(LeNetScatter, ["all", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_stage_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        parsed("trian --k 1")
    assert "unknown stage 'trian'; nearest: train" in capsys.readouterr().err


TRAINED = "R/cifar10_vgg19_ic6"


@pytest.mark.parametrize(
    ("command", "in_flags", "fields"),
    [
        (
            "train cifar10 vgg19 --ic_index 6 --data_path D --root R",
            "train --dataset cifar10 --arch vgg19 --ic-index=6 --data-dir D --out R",
            {"dataset": "cifar10", "arch": "vgg19", "ic_index": 6, "data_dir": "D", "out": "R"},
        ),
        ("train cifar100", "train --dataset cifar100", {"dataset": "cifar100"}),
        (
            "train digits learning-rate=0.2",
            "train --dataset digits --lr 0.2",
            {"dataset": "digits", "learning_rate": 0.2},
        ),
        ("train mnist vgg11 --dataset digits", "train dataset=digits", {"dataset": "digits"}),
        (
            "all digits resnet18 --timestep 500",
            "--dataset digits --model resnet18 --steps 500",
            {"dataset": "digits", "arch": "resnet18", "steps": 500},
        ),
        (
            f"ann2snn {TRAINED} --percentile 0.99",
            f"ann2snn --percentile 0.99 --run {TRAINED}",
            {"run": TRAINED, "percentile": 0.99},
        ),
        (f"tune {TRAINED}", f"tune --run {TRAINED}", {"run": TRAINED}),
        (f"simulate {TRAINED}", f"simulate --run {TRAINED}", {"run": TRAINED}),
        ("stop ./a=b", "stop --run ./a=b", {"run": "./a=b"}),
        (
            "plot R/a/snn_0.0_0.999 R/b/snn_0.5_0.99 --root R",
            "plot --root R --exps R/a/snn_0.0_0.999 R/b/snn_0.5_0.99",
            {"exps": ("R/a/snn_0.0_0.999", "R/b/snn_0.5_0.99"), "out": "R"},
        ),
        ("plot", "plot", {}),
        (
            "train mnist --opt_wd 1e-4 --gamma 0.1 --lr_steps 5 7 --epochs 9",
            "train --weight_decay 1e-4 --lr_factor 0.1 --lr_step 5 7 --epochs 9",
            {"weight_decay": 1e-4, "lr_factor": 0.1, "lr_step": (5, 7), "epochs": 9},
        ),
    ],
)
def test_words_that_stand_without_a_flag(command, in_flags, fields):
    expected = command.split()[0], BayesianSpikeFusion(**fields)
    assert parsed_fusion(command) == parsed_fusion(in_flags) == expected


def parsed_fusion(command):
    stages = dict.fromkeys(BayesianSpikeFusion.positionals, "")
    return parse_command(BayesianSpikeFusion, shlex.split(command), stages)


@dataclass(frozen=True)
class OneAndSeveral(Common):
    """Settings of a stage with one word and then several."""

    positionals: ClassVar = {"all": ("seed", "tags")}
    tags: tuple[str, ...] = ()
    """Words."""


def test_paths_with_blanks_are_whole(tmp_path):
    folders = [tmp_path / "my runs, old" / name for name in ("a [1]", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    parsed = parse_command(OneAndSeveral, ["all", "7", *map(str, folders)])[1]
    assert parsed.tags == tuple(map(str, folders))
    assert parse_command(OneAndSeveral, ["all", "7", "a,b", "c d"])[1].tags == ("a", "b", "c", "d")


def test_one_word_and_then_several():
    words = shlex.split("all 7 a b --epochs 2")
    assert parse_command(OneAndSeveral, words)[1] == OneAndSeveral(
        seed=7, tags=("a", "b"), epochs=2
    )
    assert parse_command(OneAndSeveral, ["all", "7"])[1] == OneAndSeveral(seed=7)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train cifar10 vgg19 deeper", "'deeper' belongs to no flag"),
        ("simulate R/run another", "'another' belongs to no flag"),
        ("simulate --percentile 0.99 R/run", "'R/run' belongs to no flag"),
        ("train mnist vgg12", "vgg11"),
        ("mnist vgg11", "unknown stage 'mnist'"),
    ],
)
def test_words_in_a_wrong_place_are_refused(command, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed_fusion(command)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert said in " ".join((shown.out + shown.err).replace("│", " ").split())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--epochs 0", "epochs is 0"),
        ("--k 31", "k is 31 in the configuration; give 0 to 12"),
        ("--k 99", "k is 99 in the configuration; give 0 to 12"),
        ("--k -1", "k is -1 in the configuration; give 0 to 12"),
        ("--B 1000000000", "B is 1000000000 in the configuration; give 1 to 2048 with k = 1"),
        ("--k 12 --B 2", "B is 2 in the configuration; give 1 to 1 with k = 12"),
        ("--limit-test 0", "limit_test is 0"),
        ("--lr -1", "learning_rate is -1.0"),
        ("--lr nan", "learning_rate is nan"),
        ("--seed -1", "seed is -1"),
        ("--k -1", "k is -1"),
        ("--B 0", "B is 0"),
        ("--noise_ratio 0.1 1.5", "noise_ratio is (0.1, 1.5)"),
        ("--validation -1", "validation is -1"),
        ("--noise_seeds 0", "noise_seeds is 0"),
        ("--k 1.5", "--k"),
        ("--mode sleeping", "--mode"),
    ],
)
def test_values_out_of_range_are_named(flags, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(flags)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert said in " ".join((shown.out + shown.err).replace("│", " ").split())


def test_help_explains_every_flag_and_stage(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("simulate --k 0 --help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in STAGES:
        assert f"- {name}: {STAGES[name]}"[:60] in shown
    explained = " ".join(shown.replace("│", " ").split()).split("message and exit")[1]
    for name in flags(LeNetScatter):
        after = explained.split(f"--{name.replace('_', '-')} ", 1)[1]
        text = after.split("(default:", 1)[0]
        assert len(text.split()) > 3, f"--{name} is not explained: {text}"
    assert "--argv" not in shown
    assert "--paper-implied" not in shown


positive = st.integers(1, 10**9)
configs = st.builds(
    LeNetScatter,
    k=st.integers(0, 7),
    B=st.integers(1, 2),
    precision=st.sampled_from(["quantised", "fp32"]),
    mode=st.sampled_from(["training", "inference", ""]),
    noise_ratio=st.lists(st.floats(0, 1), min_size=1).map(tuple),
    validation=st.none() | st.integers(0, 10**6),
    resume=st.booleans(),
    learning_rate=st.floats(1e-12, 1e6),
    seed=st.integers(0, 2**32 - 1),
    limit_train=st.none() | positive,
    out=st.text("abc/=-._ '\"", min_size=1, max_size=8).filter(lambda text: text[0] not in "'\"-"),
)


def spell(draw, name, value):
    """One of the accepted spellings of a flag and its value."""
    written = "".join(draw(st.sampled_from("-_")) if c == "_" else c for c in name)
    if isinstance(value, tuple):
        parts = [repr(part) for part in value]
        separate = [f"--{written}", *parts]
        return draw(st.sampled_from([separate, [f"{written}={','.join(parts)}"]]))
    if isinstance(value, bool):
        word = draw(st.sampled_from([str(value), str(value).lower(), str(value).upper()]))
        ways = [[f"--{written}", word], [f"--{written}={word}"], [f"{written}={word}"]]
        return draw(st.sampled_from([*ways, [f"--{written}"]] if value else ways))
    word = draw(st.sampled_from([f"{value}", f"'{value}'", f'"{value}"']))
    return draw(
        st.sampled_from([[f"--{written}", word], [f"--{written}={word}"], [f"{written}={word}"]])
    )


@given(st.data(), configs)
def test_every_spelling_of_a_configuration_gives_it_back(data, config):
    fields = [(name, getattr(config, name)) for name in flags(LeNetScatter)]
    asked = [(name, value) for name, value in fields if value != ()]
    order = data.draw(st.permutations(asked))
    words = [word for name, value in order for word in spell(data.draw, name, value)]
    missing = {"noise_ratio": ()} if not config.noise_ratio else {}
    stage, read = parse_command(LeNetScatter, words)
    assert dataclasses.replace(read, **missing) == config
    assert stage == {"training": "train", "inference": "evaluate", "": "all"}[config.mode]


@given(configs, st.data())
def test_normalising_twice_changes_nothing(config, data):
    words = [
        word
        for name in flags(LeNetScatter)
        if name != "out" and getattr(config, name) != ()
        for word in spell(data.draw, name, getattr(config, name))
    ]
    once = normalise(LeNetScatter, words)
    assert normalise(LeNetScatter, once) == once


@given(st.lists(st.text(max_size=6), max_size=4))
def test_any_words_are_read_or_refused_with_a_message(words):
    try:
        result = normalise(LeNetScatter, words)
    except ValueError as error:
        result, message = [], str(error)
    else:
        message = ""
    said = ("unknown", "wants", "belongs", "neither", "possible")
    refused = any(word in message for word in said)
    assert refused == bool(message)
    names = {name.replace("_", "-") for name in flags(LeNetScatter)} | {"help"}
    written = [word for word in result if word.startswith("--")]
    assert {word[2:].split("=")[0] for word in written} <= names
    assert bool(written) == bool(words and not refused)


@given(configs)
def test_json_gives_the_configuration_back(config):
    phases = [{"epochs": 15, "learning_rate": 1e-3}, {"epochs": 5, "learning_rate": 1e-4}]
    assert from_json(LeNetScatter, to_json(config, phases)) == (config, phases)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k": "1"}, "k is '1'; expected a valid integer"),
        ({"k": True}, "k is True; expected a valid integer"),
        ({"k": 1.0}, "k is 1.0; expected a valid integer"),
        ({"k": -1}, "k is -1"),
        ({"resume": 1}, "resume is 1; expected a valid boolean"),
        ({"learning_rate": "high"}, "learning_rate is 'high'; expected a valid number"),
        ({"precision": "int4"}, "precision is 'int4'; expected 'quantised' or 'fp32'"),
        ({"validation": "all"}, "validation is 'all'"),
        ({"noise_ratio": 0.1}, "noise_ratio is 0.1"),
        ({"noise_ratio": ["a"]}, "noise_ratio.0 is 'a'; expected a valid number"),
        ({"colour": "red"}, "colour is unknown"),
        ({"paper_implied": True}, "paper_implied is unknown"),
        ({"phases": None}, "phases is NoneType; expected a valid array"),
        ({"k": "1", "B": "2"}, "k is '1'; expected a valid integer; B is '2'"),
        ({"experiment": "cifar10_cnn1"}, "is a run of cifar10_cnn1, not of mnist_lenet"),
    ],
)
def test_json_of_another_kind_is_refused(change, said):
    record = json.loads(to_json(LeNetScatter())) | change
    with pytest.raises(UserError, match=r"^runs/k1B2/config\.json") as refusal:
        from_json(LeNetScatter, json.dumps(record), "runs/k1B2/config.json")
    (line,) = str(refusal.value).splitlines()
    assert said in line


def test_a_field_that_came_later_takes_its_default():
    """Runs and kept weights outlive the settings that are added after them."""
    record = json.loads(to_json(LeNetScatter(k=0, B=1, noise_seeds=3)))
    del record["noise_seeds"]
    read, _ = from_json(LeNetScatter, json.dumps(record))
    assert read == LeNetScatter(k=0, B=1)
    del record["k"]  # what the network is must be said
    with pytest.raises(ValueError, match="k is missing; it was written by"):
        from_json(LeNetScatter, json.dumps(record), needed=("k", "B"))
    cnn1 = NegativeSpikesCnn1(k=2)  # its architecture is no setting
    assert from_json(NegativeSpikesCnn1, to_json(cnn1), needed=("arch", "k"))[0] == cnn1


OLD = """{"dataset": "cifar10", "data_dir": null, "out": "runs/cifar10_cnn1", "epochs": 3,
"batch_size": 32, "learning_rate": 1e-3, "seed": 0, "resume": false, "limit_train": null,
"limit_test": null, "devices": null, "validation": 0, "k": 1, "precision": "quantised",
"schedule": "cosine", "mode": "", "noise_ratio": [], "noise_seeds": 5, "steps": null,
"weights": "integer", "weight_bits": 7, "certify": 500, "phases": [{"epochs": 3,
"learning_rate": 1e-3, "schedule": "cosine", "first_step": 0, "steps_per_epoch": 1562}]}"""


def test_a_run_from_before_recipes_was_trained_by_the_papers_in_float32():
    """Its file has neither recipe, compute and width nor what the run is called."""
    read, phases = from_json(NegativeSpikesCnn1, OLD, needed=("arch", "k", "width"))
    assert (read.recipe, read.compute, read.width) == ("paper", "float32", 1.0)
    assert (read.optimiser, read.batch_size, read.flip) == ("adam", 32, "random")
    written = to_json(read, phases)  # as a resumed run writes it
    assert json.loads(written)["recipe"] == "paper"
    assert from_json(NegativeSpikesCnn1, written) == (read, phases)


def test_a_long_training_that_runs_can_be_read_and_resumed():
    """The form of the first runs with a recipe: every part flat, nothing made from them."""
    parts = dataclasses.asdict(RECIPES["fast"]) | {"crop_radius": 2}
    flat = json.loads(OLD) | parts | {"recipe": "fast", "compute": "bfloat16", "width": 1.0}
    phase = {"epochs": 16, "learning_rate": 0.05, "schedule": "linear"}
    steps = {"first_step": 0, "steps_per_epoch": 97}
    text = json.dumps(flat | {"epochs": 16, "phases": [phase | steps]})
    asked = NegativeSpikesCnn1(crop_radius=2, compute="bfloat16", validation=0)
    read, _ = from_json(NegativeSpikesCnn1, text, needed=("arch", "k"))
    identity = ("k", "width", "dataset", "seed", "compute", "recipe", *PARTS)
    assert differences(read, asked, identity, "config.json") == []
    other = dataclasses.replace(asked, compute="float32", flip="random")
    assert differences(read, other, identity, "config.json") == [
        "compute: bfloat16 in config.json, float32 asked",
        "flip: alternating in config.json, random asked",
    ]


def test_config_says_what_the_run_is_but_reads_the_flags_alone():
    record = json.loads(to_json(NegativeSpikesCnn2(k=2, width=0.25)))
    assert (record["experiment"], record["setting"]) == ("cifar10_cnn2", "k2_width0.25")
    assert record["settings"] == {
        **dict.fromkeys(("bound", "bits", "variant")),
        **{"network": "cnn2", "precision": "quantised", "k": 2, "width": 0.25},
    }
    changed = json.dumps(record | {"setting": "k7", "settings": {"k": 7}})
    assert from_json(NegativeSpikesCnn2, changed)[0] == NegativeSpikesCnn2(k=2, width=0.25)
    with pytest.raises(UserError, match="a run of cifar10_cnn2, not of cifar10_cnn1"):
        from_json(NegativeSpikesCnn1, json.dumps(record))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--recipe slow", "error: --recipe is 'slow'; possible: paper, fast"),
        ("--compute=fp8", "error: --compute is 'fp8'; possible: auto, float32, bfloat16"),
        ("--mode sleeping", "error: --mode is 'sleeping'; possible: training, inference, nothing"),
    ],
)
def test_a_word_that_is_no_choice_is_refused_in_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(words, NegativeSpikesCnn1)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines() == [line]


def test_help_may_be_cut_off():
    """A reader of the output that leaves at once, as ``head`` does, sees no traceback."""
    place = Path(__file__).parents[2] / "experiments" / "cifar10_cnn1.py"
    with subprocess.Popen(
        [sys.executable, str(place), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert said == ""
    assert process.returncode in (0, 141)  # 0 where it had written everything before


def test_the_help_of_cifar_says_how_long_it_takes(capsys):
    with pytest.raises(SystemExit):
        parsed("--help", NegativeSpikesCnn2)
    shown = " ".join(capsys.readouterr().out.split())
    assert NegativeSpikesCnn2.expect in shown
    assert "4 hours" in shown


def test_json_with_a_needed_field_missing_or_cut_short_is_refused():
    @dataclass(frozen=True)
    class Needs:
        rate: float
        steps: int
        seeds: tuple[int, ...] = field(default_factory=tuple)

    with pytest.raises(ValueError, match="rate is missing; steps is missing; it was wri"):
        from_json(Needs, '{"phases": []}')
    assert from_json(Needs, '{"rate": 1, "steps": 2, "phases": []}')[0] == Needs(1.0, 2)
    for text in ("", to_json(LeNetScatter())[:-9], "[]"):
        with pytest.raises(ValueError, match=r"^config\.json: "):
            from_json(LeNetScatter, text)


def test_differences_name_both_values_and_the_place():
    saved = LeNetScatter(k=1, precision="fp32", epochs=3)
    current = LeNetScatter(k=0, epochs=9)
    keys = ("k", "B", "precision")
    assert differences(saved, current, keys, "runs/a/config.json") == [
        "k: 1 in runs/a/config.json, 0 asked",
        "precision: fp32 in runs/a/config.json, quantised asked",
    ]
    assert differences(saved, saved, keys, "x") == []


def test_the_settings_folder_is_named_after_k_and_b():
    assert [LeNetScatter(k=k, B=b).setting for k, b in ((1, 2), (0, 1))] == ["k1B2", "k0B1"]
    assert LeNetScatter(k=0, B=1, precision="fp32").setting == "fp32"
