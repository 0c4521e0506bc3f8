"""The runner of stages: a system's own ones, what ``all`` is, what is read when; seconds taken."""

from typing import ClassVar

import pytest

from jaxsnn.errors import UserError
from jaxsnn.systems import stages, timing
from jaxsnn.systems.settings.conversion import LeNetScatter
from jaxsnn.systems.stages import COMMON, Stage, System


class Counting(System):
    """A system that writes down what is asked of it."""

    system = "counting"
    measured = "share of the counted"
    stages: ClassVar = {
        **COMMON,
        "count": Stage("counts", lambda request: request.one.count(request.console)),
        "twice": Stage("two settings", lambda request: Counting.both(request.config)),
    }
    every = ("train", "count", "evaluate")
    seen: ClassVar = []

    def __init__(self, config):
        self.seen.append(f"read {config.setting}")
        if config.k == 7:
            raise UserError("k is 7")

    def train(self):
        self.seen.append("train")

    def evaluate(self):
        return 0.25

    def count(self, console):
        self.seen.append("count")
        console.print("counted")

    @classmethod
    def both(cls, config):
        for k in (0, config.k):
            cls(type(config)(k=k)).train()

    @classmethod
    def draw(cls, config):
        return {"picture": config.out}


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    calls = []
    monkeypatch.setattr(Counting, "seen", calls)
    return calls


def start(*words):
    return stages.main(Counting, LeNetScatter, words)


def test_all_is_what_the_system_says_in_its_order(seen, capsys):
    assert start("all") == start() == 0
    assert seen == ["read k1B2", "train", "count"] * 2  # the data are read once a command
    lines = ["counted", "k1B2: share of the counted 25.00%"]
    assert capsys.readouterr().out.splitlines() == lines * 2


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("count", ["read k1B2", "count"]),
        ("plot", []),  # files of earlier runs are enough
        ("twice", ["read k0B2", "train", "read k1B2", "train"]),
    ],
)
def test_a_stage_reads_the_data_only_where_it_needs_them(stage, expected, seen):
    assert start(stage) == 0
    assert seen == expected


def test_mistakes_are_one_line(seen, capsys):
    assert start("count", "--k", "7") == 2
    assert capsys.readouterr().err == "error: k is 7\n"
    assert seen == ["read k7B2"]
    with pytest.raises(SystemExit):
        start("simulat")
    assert "nearest: simulate" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, capsys):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Counting, "train", stopped)
    assert start("train") == 130
    assert "--resume" in capsys.readouterr().err


def test_the_help_names_every_stage(capsys):
    with pytest.raises(SystemExit) as stopped:
        start("--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for line in ("- all: in this order: train, count, evaluate", "- count: counts", "- twice: two"):
        assert line in shown


def test_what_compiling_took_is_without_the_time_of_the_first_batch(monkeypatch):
    """By a clock that stands still but for the simulations: 5 s (compiled), 2 s, all of it 30 s."""
    now, takes, seen = [100.0], iter([5.0, 2.0, 30.0]), []

    def evaluate(snn, examples, labels=None, **options):
        now[0] += next(takes)
        seen.append((examples, labels, options["steps"]))
        return "found"

    monkeypatch.setattr(timing, "evaluate", evaluate)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    shown = [(slice(4), "first"), (slice(None), "everything")]
    actual = timing.timed(
        "snn",
        lambda rows: next(what for slices, what in shown if slices == rows),
        "labels",
        batch_size=4,
        steps=3,
    )
    assert actual == ("found", {"compile": 3.0, "simulate": 30.0})
    assert seen == [("first", None, 3)] * 2 + [("everything", "labels", 3)]
