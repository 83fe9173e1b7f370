"""What may pass by itself and what does not: said by errors as opening and reading raise them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipelines.instance import Unreadable, open_header
from pipelines.passing import may_pass, sentence


@pytest.mark.parametrize(
    ("number", "passes"),
    [
        *((number, True) for number in (errno.EIO, errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN)),
        *((number, False) for number in (errno.EINVAL, errno.EISDIR, errno.EACCES, errno.ENOENT, errno.ENOSPC)),
    ],
    ids=lambda value: errno.errorcode[value] if value > 1 else None,
)
def test_the_disk_may_be_well_again_and_the_file_not(number: int, passes: bool, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number))
    assert may_pass(sentence(error, tmp_path / "file")) is passes
    assert may_pass(f"[Errno {number}] {os.strerror(number)}: 'file'") is passes  # as a pipeline may say it


def test_a_file_that_is_gone_does_not_come_back_and_a_drive_may(tmp_path: Path) -> None:
    said = []
    for path in (tmp_path / "gone.dcm", tmp_path / "drive" / "away.dcm", tmp_path):
        with pytest.raises(Unreadable) as fault:
            open_header(path)
        said.append(str(fault.value))
    assert [may_pass(each) for each in said] == [False, True, False]


def test_what_is_no_dicom_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(b"Dear Sir or Madam" * 20)
    with pytest.raises(Unreadable) as fault:
        open_header(tmp_path / "letter")
    assert not may_pass(str(fault.value))
