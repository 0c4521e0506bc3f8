"""A file of another setting that is broken is left out of the figures, with a line."""

import json

import pytest

from jaxsnn.errors import UserError
from jaxsnn.report.figures import layers
from jaxsnn.report.figures.draw import Figures, draw_all
from jaxsnn.report.recorded import read_finetune, read_gaps
from jaxsnn.report.results import Results, RunSettings, write_results

GAP = {
    "site": "conv2",
    **dict.fromkeys(("clipping", "quantisation", "wrong_order", "inherited"), 0.1),
}
LAYER = {"site": "conv2", "losses": [0.5], "accuracies": [0.9], "kept": True}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"gaps\.json: Input should be a valid (array|list)"),
        ([3], r"gaps\.json: 0 is 3; expected an object"),
        ([{**GAP, "site": 3}], r"gaps\.json: 0\.site is 3; expected a valid string"),
        ([GAP, {**GAP, "clipping": None}], r"gaps\.json: 1\.clipping is None"),
        ([{"site": "conv2"}], r"gaps\.json: 0\.clipping is missing"),
    ],
)
def test_gaps_of_another_type_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_gaps(write(tmp_path / "gaps.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not a JSON object"),
        ({}, r"finetune\.json: layers is missing"),
        ({"layers": [{**LAYER, "losses": "low"}]}, r"layers\.0\.losses is 'low'"),
        ({"layers": [{**LAYER, "kept": 1}]}, r"layers\.0\.kept is 1; expected a valid boolean"),
        ({"layers": [LAYER], "test_accuracy_after": "high"}, "test_accuracy_after is 'high'"),
    ],
)
def test_records_of_fine_tuning_of_another_type_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_finetune(write(tmp_path / "finetune.json", content))


def test_broken_neighbours_are_left_out_of_the_figures_with_a_line(tmp_path, capsys):
    """One whole setting; beside it broken results, metrics and gaps."""
    fields = {"experiment": "fast_snn", "system": "fast_snn", "dataset": "digits"}
    for bits in (2, 3):
        setting, settings = f"alex_{bits}bit", RunSettings(network="alex", bits=bits)
        results = Results(setting=setting, settings=settings, ann_accuracy=0.9, **fields)
        write_results(tmp_path / setting, results)
        write(tmp_path / setting / "gaps.json", [GAP])
    write(tmp_path / "alex_3bit" / "gaps.json", [{**GAP, "clipping": "much"}])
    write(tmp_path / "alex_4bit" / "results.json", {"ann_accuracy": "high"})
    good = {"epoch": 1, "step": 1, "train_loss": 0.5, "train_accuracy": 0.5}
    write(tmp_path / "alex_2bit" / "metrics.jsonl", good)
    write(tmp_path / "alex_3bit" / "metrics.jsonl", {**good, "train_loss": "low"})
    drawn = draw_all(tmp_path, {"fast_snn": Figures(recorded={"gaps": layers.gaps})})
    assert {"gaps", "training", "alex_2bit/training"} <= drawn.keys()
    assert "alex_3bit/training" not in drawn
    said = capsys.readouterr().err.splitlines()
    for file in ("alex_4bit/results.json", "alex_3bit/metrics.jsonl", "alex_3bit/gaps.json"):
        assert sum("left out" in line and file in line for line in said) == 1
