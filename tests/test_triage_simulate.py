"""What triage would do to the waits: equal to the closed form where there is one, and true of small cases by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from node.ledger import Ledger
from node.triage.closed_form import mean_waits, share_that_waits
from node.triage.reading_room import waits
from node.triage.simulate import Assumed, Measured, as_they_came, at_rate, simulate
from tests.ledgers import arrival, claimed, made, settled, upgraded_file, wanted
from tests.peers import ROOT


def test_one_reader_waits_as_the_formulas_of_one_server_say() -> None:
    assert share_that_waits(0.8, 1) == pytest.approx(0.8)  # M/M/1: ρ
    assert share_that_waits(2.0, 3) == pytest.approx(4 / 9)  # Erlang's C(3, 2), by hand
    assert mean_waits([0.8], 1.0, 1) == pytest.approx([4.0])  # ρ/(μ-λ)
    first, second = mean_waits([0.2, 0.6], 1.0, 1)
    assert (first, second) == pytest.approx((0.8 / 0.8, 0.8 / (0.8 * 0.2)))  # Cobham
    assert 0.2 * first + 0.6 * second == pytest.approx(0.8 * 4.0)  # Kleinrock: order moves waits, it makes none
    with pytest.raises(ValueError, match="the queue grows for ever"):
        mean_waits([0.6, 0.6], 1.0, 1)


def test_the_simulated_room_waits_as_the_closed_form_of_priority_queues_says() -> None:
    rng = np.random.default_rng(1)
    rates, reading, readers, batches = [0.5, 2.0], 1.0, 3, 40
    count = 200_000
    came = np.cumsum(rng.exponential(1 / sum(rates), count))
    urgent = rng.random(count) < rates[0] / sum(rates)
    took = waits(came, rng.exponential(reading, count), readers, flagged_at=np.where(urgent, came, np.inf))
    for which, exact in zip((urgent, ~urgent), mean_waits(rates, reading, readers), strict=True):
        means = [part[own].mean() for part, own in zip(np.split(took, batches), np.split(which, batches), strict=True)]
        error = np.std(means[1:], ddof=1) / np.sqrt(batches - 1)  # of batch means: waits in a row resemble each other
        assert error / exact < 0.04
        assert abs(np.mean(means[1:]) - exact) < 3.5 * error


def test_a_flag_moves_up_what_waits_when_it_is_known_and_interrupts_nobody() -> None:
    came, reading = np.array([0.0, 1, 2, 3]), np.full(4, 10.0)
    assert waits(came, reading, 1).tolist() == [0, 9, 18, 27]
    at_once = np.array([np.inf, np.inf, np.inf, 3])
    assert waits(came, reading, 1, flagged_at=at_once).tolist() == [0, 19, 28, 7]
    assert waits(came, reading, 1, flagged_at=np.array([np.inf, np.inf, np.inf, 15])).tolist() == [0, 9, 28, 17]
    assert waits(came, reading, 2, flagged_at=at_once).tolist() == [0, 0, 9, 7]
    assert waits(came, reading, 1, flagged_at=np.array([np.inf, np.inf, np.inf, 99])).tolist() == [0, 9, 18, 27]


def test_what_positives_gain_the_others_lose_and_the_closed_form_lies_within_the_interval() -> None:
    assumed = Assumed(Measured(0.9), Measured(0.85), 0.1, readers=2, reading_minutes=8)
    report = simulate(assumed, at_rate(12, 10), replications=60, seed=3)
    minutes, exact = report["minutes"], report["closed_form"]
    for group, key in (("positives", "mean_with"), ("negatives", "mean_with"), ("all", "mean_without")):
        low, high = minutes[group][key]["interval"]
        assert low < exact["without" if key == "mean_without" else group] < high
    assert minutes["positives"]["change"]["interval"][1] < 0 < minutes["negatives"]["change"]["interval"][0]
    assert minutes["positives that it misses"]["change"]["value"] > 0
    assert abs(minutes["all"]["change"]["value"]) < 0.5
    assert report["curves"]["positives"]["with"]["mean"][0] > report["curves"]["positives"]["with"]["mean"][5]


def test_a_model_that_was_measured_on_few_may_find_far_fewer() -> None:
    def fewest(n: int | None) -> float:
        assumed = Assumed(Measured(0.8, n), Measured(0.9, n), 0.2, readers=1, reading_minutes=4)
        came = as_they_came(np.arange(0, 86400, 300.0))
        report = simulate(assumed, came, replications=80)
        return float(report["minutes"]["positives that it finds"]["n"]["interval"][0])

    assert fewest(8) < 0.9 * fewest(None)


def wetread(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment)


def test_the_command_replays_the_ledger_with_what_evaluate_measured(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_bytes(upgraded_file())
    ledger = Ledger(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}")
    begun = time.time() - 3600
    for number in range(25):
        at = begun + 60 * number
        (job,) = settled(ledger, arrival(study=f"1.2.{number}", at=at), jobs=(wanted("ct_head"),), at=at + 3)
        claim = claimed(ledger, job, at=at + 4)
        ledger.finish(claim, outcome="read", evidence=made("sr", key=str(job.id)), now=at + 3 + 90)
    ledger.close()
    said = {
        "name": "hemorrhage",
        "n": 40,
        "positives": 10,
        "sensitivity": {"value": 0.9},
        "specificity": {"value": 0.8},
    }
    (tmp_path / "report.json").write_text(json.dumps({"classes": [said]}))
    asked = ("triage", "simulate", "ct_head", "--report", "report.json", "--replications", "10", "--readers", "2")
    done = wetread(*asked, "--out", "sim", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25 cases of" in done.stdout
    assert "sensitivity 0.900 (measured on 10)" in done.stdout
    kept = json.loads((tmp_path / "sim" / "triage.json").read_text())
    assert kept["assumed"]["model_minutes"] == pytest.approx(1.5)
    assert kept["minutes"]["all"]["n"]["value"] == 25
    assert (tmp_path / "sim" / "triage.png").read_bytes().startswith(b"\x89PNG")
    shown = wetread(*asked, "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["minutes"] == kept["minutes"]  # the same seed


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "--sensitivity and --specificity and --prevalence: not given, and no --report says it"),
        (("--report", "none.json"), 2, "--report none.json: no sensitivity and specificity in it"),
        (("--sensitivity", ".9", "--specificity", ".9", "--prevalence", ".1"), 1, "no ledger under"),
        (
            ("--sensitivity", ".9", "--specificity", ".9", "--prevalence", ".1", "--rate", "60"),
            1,
            "nothing to simulate: 8.00 readers are kept busy, and there are 1: the queue grows for ever",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    done = wetread("triage", "simulate", "ct_head", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert sentence in done.stderr
