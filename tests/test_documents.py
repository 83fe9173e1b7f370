"""What the documents say is so."""

from __future__ import annotations

import json

import pytest

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
