"""The conformance statement is what the code does."""

from __future__ import annotations

import re

import pytest

from tests.conformance import STATEMENT, TABLES, made_anew
from tests.peers import ROOT


def test_its_tables_are_made_from_the_code() -> None:
    statement = STATEMENT.read_text()
    assert set(re.findall(r"<!-- table: ([\w ]+) -->", statement)) == set(TABLES)
    assert made_anew(statement) == statement, "run: python -m tests.conformance"


def test_it_has_the_chapters_of_ps3_2() -> None:
    chapters = re.findall(r"^## (\d) (.+)$", STATEMENT.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in chapters] == list(range(1, len(chapters) + 1))
    assert [title for _, title in chapters] == [
        "Conformance Statement Overview",
        "Introduction",
        "Networking",
        "Media interchange",
        "Web services",
        "Support of character sets",
        "Security",
        "Other protocols",
        "Annexes",
    ]


@pytest.mark.parametrize(
    "line", [line for line in (ROOT / "deploy" / "AIR.md").read_text().splitlines() if "`tests/" in line]
)
def test_what_is_said_of_air_names_tests_that_are_there(line: str) -> None:
    for file, name in re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", line):
        text = (ROOT / file).read_text()
        assert not name or f"def {name}(" in text, (file, name)
