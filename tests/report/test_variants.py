"""The table of variants: what was measured, beside the paper's, in order, in 80 characters."""

import dataclasses
import io

import pytest
from rich.console import Console

from jaxsnn.report import variants
from jaxsnn.report.results import Results, RunSettings, Variant

LINE = {"snn": 4.36e6, "ann": 2.4e7, "encoder": 1.4e6, "break_even_rate": 4.8}
LEDGER = {"convention": LINE, "integer": LINE, "words": LINE}


def fast(bits, **fields):
    return Results(
        experiment="fast_snn",
        system="fast_snn",
        dataset="mnist",
        setting=f"alex_{bits}bit",
        settings=RunSettings(network="alex", bits=bits),
        **fields,
    )


THREE = fast(
    3,
    ann_accuracy=0.9915,
    paper={"ann_accuracy": 0.9898, "unsigned_accuracy": 0.7892, "finetuned_accuracy": 0.9889},
    variants=[
        Variant(kind="settling", accuracy=0.9915, steps=31, spikes_per_image=123_456.7),
        Variant(kind="something else", accuracy=0.5),
        Variant(kind="signed", share=0.97, accuracy=0.4),  # of a step, not of the whole simulation
        Variant(kind="fine-tuned", accuracy=0.9911, steps=7),
        Variant(
            kind="unsigned",
            accuracy=0.8601,
            steps=7,
            spikes_per_image=98_765.4,
            sops_per_image=1.2346e8,
            energy_pj_per_image=LEDGER,
        ),
    ],
)


def lines(*rows, width=80):
    out = io.StringIO()
    variants.print_variants(rows, Console(file=out, width=width, force_terminal=False))
    return out.getvalue().splitlines()


def test_lines_come_in_the_order_of_the_paper_with_ours_behind():
    table = variants.variants_table([THREE])
    assert [str(cell) for cell in table.columns[1].cells] == [
        "quantised ANN",
        "unsigned",
        "fine-tuned",
        "settling",
        "something else",
    ]
    assert [str(cell) for cell in table.columns[0].cells] == ["alex_3bit", "", "", "", ""]


def test_a_line_has_what_was_measured_and_what_was_published():
    shown = lines(THREE)
    unsigned = next(line for line in shown if "unsigned" in line)
    # 1.2346e8 operations are 123.46 million, 4.36e6 pJ are 4.36 uJ
    assert unsigned.split() == ["unsigned", "86.01", "78.92", "7", "98,765", "123.5", "4.36"]
    settling = next(line for line in shown if "settling" in line)
    assert settling.split() == ["settling", "99.15", "31", "123,457"]
    assert next(line for line in shown if "quantised" in line).split()[-2:] == ["99.15", "98.98"]


def test_the_float_network_has_a_line_of_its_own():
    actual = lines(fast(32, float_ann_accuracy=0.9925), THREE)
    assert any(line.split() == ["alex_32bit", "float", "ANN", "99.25"] for line in actual)


@pytest.mark.parametrize("name", ["vgg11_32bit", "alex_2bit"])
def test_the_table_fits_into_80_characters(name):
    big = Variant(
        kind="big",
        accuracy=1.0,
        steps=1_000,
        spikes_per_image=1_234_567.0,
        sops_per_image=3.4567e9,
        energy_pj_per_image=LEDGER,
    )
    row = Results(
        experiment="fast_snn",
        system="fast_snn",
        dataset="lfw",
        setting=name,
        settings=RunSettings(network="vgg11", bits=32),
        ann_accuracy=1.0,
        paper=dict.fromkeys(variants.PAPER.values(), 0.98),
        variants=[dataclasses.replace(big, kind=kind) for kind in variants.VARIANTS],
    )
    actual = "\n".join(lines(row))
    assert "…" not in actual
    assert all(len(line) <= 80 for line in actual.splitlines())
    assert "3,457" in actual


def test_settings_without_networks_give_no_line():
    assert variants.variants_table([fast(2)]).row_count == 0
