"""highdicom's table of the standard, piece by piece: the same, for a fraction of the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import highdicom
import pytest

from pipelines.evidence.tables import Modules
from tests.peers import ROOT

FILE = Path(highdicom.__file__).parent / "_standard" / "module_attribute_map.json"
PEAK = """
import re, highdicom
{install}
from pathlib import Path
from highdicom import _standard_utils
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
assert _standard_utils.is_attribute_in_iod("ContentDate", "1.2.840.10008.5.1.4.1.1.66.4")
assert not _standard_utils.is_attribute_in_iod("ContentDate", "1.2.840.10008.5.1.4.1.1.11.2")
print((peak() - before) / 1024)
"""


def test_every_module_is_what_the_file_says() -> None:
    modules, whole = Modules(FILE), json.loads(FILE.read_text())
    assert set(modules) == set(whole)
    assert all(modules[name] == whole[name] for name in whole)
    with pytest.raises(KeyError):
        modules["no module"]


def test_highdicom_asks_it_and_saves_most_of_the_memory() -> None:
    peaks = []
    for install in ("", "import pipelines.evidence"):
        command = [sys.executable, "-c", PEAK.format(install=install)]
        peaks.append(float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout))
    assert peaks[1] < peaks[0] / 2
