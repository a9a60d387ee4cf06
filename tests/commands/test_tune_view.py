"""The table of `penstock models tune`: what is no gain says so."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from backend_cases import write_decorated
from penstock.commands.tune_view import LEGEND, as_table, summary
from penstock.tuning.candidate import Candidate
from penstock.tuning.model import read_model
from penstock.tuning.search import OVERDUE, Found, Gain, Slice, Trial

NOW = Candidate("onnxruntime")
ONE_THREAD = Candidate("onnxruntime", threads=1)


def shown(*trials: Trial) -> list[str]:
    out = io.StringIO()
    found = Found(NOW, NOW, Gain(1, 1), trials, True)
    Console(file=out, width=160).print(as_table(found))
    return out.getvalue().splitlines()


def test_what_the_turns_do_not_agree_on_is_within_noise() -> None:
    base = Trial("instances", NOW, (Slice(1538, 1, 9),), 0.0, chosen=True)
    lucky = Trial("instances", ONE_THREAD, (Slice(1336, 1, 5),), 0.13, False, within_noise=True)
    clear = Trial("instances", Candidate("openvino"), (Slice(900, 1, 5),), -0.4, False)
    lines = shown(base, lucky, clear)
    assert next(line for line in lines if "1336" in line).split("│")[-2].strip() == (
        "+13%, within noise"
    )
    assert next(line for line in lines if " 900 " in line).split("│")[-2].strip() == "-40%"
    assert "noise" not in next(line for line in lines if "1538" in line)


def test_what_was_not_measured_is_not_compared(tmp_path: Path) -> None:
    write_decorated(tmp_path / "slow")
    model = read_model(tmp_path / "slow")

    def said(*trials: Trial) -> list[str]:
        found = Found(NOW, NOW, Gain(1, 1), trials, in_time=False)
        return [*summary(found, model, "", written=False)]

    measured = Trial("instances", NOW, (Slice(1, 1, 9),), 0.0, chosen=False)
    missing = Trial("instances", ONE_THREAD, (), 0.0, chosen=False, refused=OVERDUE)
    over = "The time was over before everything was searched: --seconds gives more of it."
    assert said(missing) == [
        over,
        "Nothing was measured: a request of this model takes too long for that time.",
    ]
    assert said(measured, missing) == [
        over,
        "Of what was measured nothing is better than what you have by more than measurements differ.",
    ]


def test_the_legend_says_what_takes_over() -> None:
    assert "3% or more that is over 2 standard errors" in LEGEND


def test_a_gain_is_within_noise_on_both_sides() -> None:
    assert Gain(1.13, 0.95).within_noise
    assert Gain(0.72, 0.4).within_noise
    assert not Gain(1.13, 1.05).within_noise
    assert not Gain(0.72, 0.65).within_noise


def test_threads_are_each_of_several_only() -> None:
    assert str(ONE_THREAD) == "onnxruntime, 1 instance, 1 thread"
    assert str(Candidate("openvino", 2, 2)) == "openvino, 2 instances, 2 threads each"
    assert str(Candidate("openvino", 2, 1)) == "openvino, 2 instances, 1 thread each"
