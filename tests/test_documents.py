"""What the documents say is so."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.__main__ import commands, runs_alone
from tests.peers import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", ["node", "pipelines"])
def test_the_tree_in_the_readme_names_every_file(package: str) -> None:
    there = [path for path in (ROOT / package).iterdir() if not path.name.startswith("__")]
    missing = [path.name for path in there if f"    {path.name}{'/' if path.is_dir() else ''} " not in README]
    assert not missing


def test_every_document_that_is_linked_is_there() -> None:
    for link in [part.split(")")[0] for part in README.split("](")[1:]]:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_figures_in_the_readme_are_those_of_the_benchmarks() -> None:
    dev = json.loads((ROOT / "benchmarks" / "mr_brain_dev.json").read_text())
    assert f"{dev['dice']['mean']:.3f}" in README
    parts = json.loads((ROOT / "benchmarks" / "mr_hippocampus_dev.json").read_text())["parts"]
    for part in parts.values():
        assert "{:.3f} ({:.3f} to {:.3f})".format(part["mean"], *part["interval"]) in README
    overhead = json.loads((ROOT / "benchmarks" / "overhead.json").read_text())["median"]
    for steps in overhead.values():
        assert f"| {steps['overhead']:.1f} s" in README


def test_the_figures_that_are_made_without_being_told_anything_need_to_be_told_nothing() -> None:
    def needs_words(program: str) -> bool:
        if "if sys.argv[1:]" in program:  # it calls itself
            return False
        return bool(re.search(r'add_argument\("[a-z]\w*"|required=True|sys\.argv\[\d\]', program))

    told = {name: needs_words((ROOT / "benchmarks" / name).read_text()) for name in commands()}
    assert {name: not runs_alone(words) for name, words in commands().items()} == told
