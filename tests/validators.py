"""Programs of others that judge documents: dsrdump (dcmtk), PixelMed's DicomSRValidator; dciodvfy is in findings.py."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.peers import where

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# The template's rules are one expression of more operators than Java allows by itself.
_NO_LIMITS = [f"-Djdk.xml.xpath{what}Limit=0" for what in ("TotalOp", "ExprOp", "ExprGrp")]
_QUICKLY = ["-XX:-DontCompileHugeMethods", "-XX:TieredStopAtLevel=1"]  # rules become methods of any length
_MISTAKEN = re.compile(r"Warning: (Template \d+) .*?: ([\d.]+): .*does not match expected template ID")
_WITHIN = re.compile(r"Error: (Template \d+) .*?: within ([\d.]+): ")


def needs_pixelmed() -> pytest.MarkDecorator:
    """A mark: the test is skipped without PixelMed and a Java that runs source files."""
    missing = not PIXELMED.exists() or where("javac") is None
    return pytest.mark.skipif(missing, reason="not installed here: libpixelmed-java, or a JDK")


def dumped(path: Path) -> list[str]:
    """What dsrdump says against a document; it reads the whole tree."""
    told = subprocess.run(["dsrdump", str(path)], capture_output=True, encoding="latin-1", check=False)
    said = [line for line in told.stderr.splitlines() if line.startswith(("E:", "F:"))]
    return said if told.returncode == 0 else [*said, f"exit status {told.returncode}"]


def template_faults(paths: Sequence[Path]) -> dict[str, list[str]]:
    """By path, the lines of PixelMed's validator that say Error; a root template that it does not know is one, too.

    Groups of TID 1410, 1411 and 1501 have one name, and it judges all by TID 1410 where there is one such; left out is
    what it says of groups that name another template.
    """
    program = str(Path(__file__).with_name("PixelMed.java"))
    command = ["java", *_NO_LIMITS, *_QUICKLY, "-cp", str(PIXELMED), program, *map(str, paths)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for part in told.split("File ")[1:]:
        name, *lines = part.splitlines()
        mistaken = {each.groups() for line in lines if (each := _MISTAKEN.match(line))}
        errors = [line for line in lines if line.startswith("Error")]
        found[name] = [line for line in errors if not ((each := _WITHIN.match(line)) and each.groups() in mistaken)]
        if "Root Template Validation Complete" not in lines:
            found[name].append(f"the root template was not validated: {lines}")
    return found
