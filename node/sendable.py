"""Files of a folder → what a C-STORE needs to know of each, study by study.

A file without the Part 10 preamble or meta header, as old exports have them, or with the meta header of another
instance, gets a right one on a copy; no pixel is decoded and no dataset is changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.destinations import Outgoing

_WANTED = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]


@dataclass(frozen=True)
class Sendable:
    """An object to send, and the file that it came from."""

    source: Path
    outgoing: Outgoing

    @property
    def sop_uid(self) -> str:
        return self.outgoing.sop_uid


def by_study(files: Iterable[Path], scratch: Path, refused: dict[Path, str]) -> list[list[Sendable]]:
    """The files, one group per study; what cannot be sent goes into ``refused`` with its reason.

    Files that share a SOP Instance UID stand in different groups, so that each is sent and answered for itself.
    """
    groups: dict[tuple[str, int], dict[str, Sendable]] = {}
    for number, path in enumerate(files):
        try:
            outgoing = _outgoing(path, scratch / f"{number}.dcm")
        except Exception as error:  # pydicom raises a dozen kinds on foreign bytes; the next file is still sent
            refused[path] = (str(error) or type(error).__name__).splitlines()[0]
            continue
        copy = 0
        while outgoing.sop_uid in groups.setdefault((outgoing.study_uid, copy), {}):
            copy += 1
        groups[outgoing.study_uid, copy][outgoing.sop_uid] = Sendable(path, outgoing)
    return [list(group.values()) for group in groups.values()]


def _outgoing(path: Path, wrapped: Path) -> Outgoing:
    dataset = dcmread(path, stop_before_pixels=True, specific_tags=_WANTED, force=True)
    missing = [keyword for keyword in _WANTED if not dataset.get(keyword)]
    if missing:
        raise ValueError("not DICOM" if len(missing) == len(_WANTED) else f"no {', no '.join(missing)}")
    meta = dataset.file_meta
    syntax = meta.get("TransferSyntaxUID")
    with path.open("rb") as file:
        is_part_10 = file.read(132)[128:] == b"DICM"
    # A file whose header was edited names another instance in its meta header than it holds; the dataset is right.
    named = (meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID"))
    names_itself = named == (dataset.SOPClassUID, dataset.SOPInstanceUID)
    if not (is_part_10 and syntax and names_itself):
        path, syntax = wrapped, _wrap(path, wrapped, syntax)
    return Outgoing(
        path=path,
        sop_class=str(dataset.SOPClassUID),
        sop_uid=str(dataset.SOPInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        transfer_syntax=str(syntax),
    )


def _wrap(path: Path, wrapped: Path, syntax: str | None) -> str:
    dataset: Dataset = dcmread(path, force=True)
    if syntax is None:
        implicit, little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(wrapped, enforce_file_format=True)
    return str(syntax)
