"""Promises of pipelines.registry: a line of settings is a pipeline, or a sentence that repeats the line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.registry import PipelineNotFound, load

PIPELINE = '''
from pydicom.sr.coding import Code
from pipelines.base import Algorithm, UnsuitableStudy

class Nothing:
    """Reads no study at all."""
    @property
    def algorithm(self):
        return Algorithm("nothing", "1.0.0", Code("123110", "DCM", "Artificial Intelligence"), "0" * 64)
    def __call__(self, study):
        raise UnsuitableStudy("it reads nothing")

class NoAlgorithm:
    def __call__(self, study):
        return ()

READY = Nothing()
VERSION = "1.0.0"
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path as an installed package leaves it: a module, and its entry point."""
    (tmp_path / "elsewhere.py").write_text(PIPELINE)
    (tmp_path / "lacking.py").write_text("import a_library_that_nobody_has\n")
    (tmp_path / "broken.py").write_text("raise OSError('the weights are damaged')\n")
    metadata = tmp_path / "elsewhere-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[wetread.pipelines]\nnothing = elsewhere:Nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("elsewhere", "lacking", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("use", ["elsewhere:Nothing", "elsewhere:READY", "nothing"])
def test_a_class_an_instance_and_an_entry_point_are_pipelines(use: str) -> None:
    assert load(use).algorithm.name == "nothing"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("use", "why"),
    [
        ("pipelines.nowhere:Reader", "there is no module pipelines.nowhere"),
        ("no.such.place:Reader", "there is no module no"),
        ("elsewhere:Missing", "the module elsewhere has no Missing"),
        ("lacking:Reader", "it needs a_library_that_nobody_has, which is not installed"),
        ("elsewhere:NoAlgorithm", "it has no algorithm or cannot be called"),
        ("elsewhere:VERSION", "it cannot be called"),
        ("unheard_of", "no installed package has this entry point; there are: nothing"),
        ("elsewhere:", "write package.module:Class"),
        ("elsewhere:os.system('x')", "write package.module:Class"),
        ("", "no installed package has this entry point"),
    ],
)
def test_a_line_that_names_no_pipeline_is_repeated_with_the_reason(use: str, why: str) -> None:
    with pytest.raises(PipelineNotFound) as error:
        load(use)
    assert str(error.value).startswith(f"use = {use!r}: ")
    assert why in str(error.value)


@pytest.mark.usefixtures("installed")
def test_a_pipeline_that_cannot_load_its_weights_says_so_itself() -> None:
    with pytest.raises(OSError, match="the weights are damaged"):
        load("broken:Reader")
