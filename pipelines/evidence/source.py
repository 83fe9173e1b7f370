"""What evidence takes over from its source: who the patient is, which study it is, where the images lie.

Nothing is invented. An attribute that must be there but may be empty (Type 2) and is missing becomes empty; a value
that breaks the rules of its VR becomes empty too, and its bytes are kept in the Original Attributes Sequence. What is
not in the tables below does not go over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM, validate_value

from pipelines.evidence.errors import InvalidEvidence
from pipelines.instance import is_uid, tag_of, text

# Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1)
MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)

# the rest that goes over: Patient, Clinical Trial Subject, General Study, Patient Study, Clinical Trial Study
_ALSO_CARRIED = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "QualityControlSubject",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "AdmissionID",
)

# what says which machine took the images, for Contributing Equipment
EQUIPMENT = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
)

# what a Segmentation needs of each source image to lie where it lies
_IMAGE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImageType",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientOrientation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_SEXES = ("", "M", "F", "O")
_DATES = {"DA": DA, "TM": TM}


@dataclass(frozen=True)
class Nonconforming:
    """A value of the source that breaks the rules of its VR, and its bytes as they came."""

    keyword: str
    value: bytes


@dataclass(frozen=True, eq=False)
class Source:
    """The patient and the study as evidence repeats them.

    Attributes:
        header: Of one instance of the source nothing but what goes over.
        missing: Keywords of Type 2 attributes that the source lacks.
        nonconforming: What was emptied.
    """

    header: Dataset
    missing: tuple[str, ...]
    nonconforming: tuple[Nonconforming, ...]

    def on(self, image: Dataset) -> Dataset:
        """An image of the source as highdicom may read it: its place, and the patient and study as they go over."""
        complete = Dataset()
        complete.update(image)
        complete.update(self.header)
        return complete

    def hand_over(self, result: Dataset) -> None:
        """Put the patient and the study on an object that highdicom has not put them on."""
        for keyword in ("SpecificCharacterSet", *MAY_BE_EMPTY, *_ALSO_CARRIED):
            if keyword in self.header:
                result[keyword] = self.header[keyword]

    def mark(self, result: Dataset, when: datetime) -> None:
        """Say on a result what is empty there because the source's value could not be taken over."""
        said = [_original(self.missing, None, when)] if self.missing else []
        said += [_original((each.keyword,), each, when) for each in self.nonconforming]
        if said:
            result.OriginalAttributesSequence = said


def _original(keywords: Iterable[str], value: Nonconforming | None, when: datetime) -> Dataset:
    """Item of the Original Attributes Sequence (PS3.3 Table C.12-1a): what was absent stands there with zero length.

    It takes one nonconforming value, so each has an item of its own.
    """
    before = Dataset()
    for keyword in keywords:
        setattr(before, keyword, None)
    item = Dataset()
    item.ModifiedAttributesSequence = [before]
    if value:
        item.NonconformingModifiedAttributesSequence = [_kept(value)]
    item.AttributeModificationDateTime = when.strftime("%Y%m%d%H%M%S")
    item.ModifyingSystem = "wetread"
    item.SourceOfPreviousValues = ""
    item.ReasonForTheAttributeModification = "CORRECT"
    return item


def _kept(value: Nonconforming) -> Dataset:
    item = Dataset()
    item.SelectorAttribute = tag_for_keyword(value.keyword)
    item.SelectorValueNumber = 1
    item.NonconformingDataElementValue = value.value + b"\0" * (len(value.value) % 2)
    return item


def take_over(header: Dataset, *, beside: str = "") -> Source:
    """What goes over from one instance of the study.

    Args:
        beside: Our own words, which will stand beside the source's: where they are more than ASCII, all is written
            in UTF-8; else the source's character set stays.

    Raises:
        InvalidEvidence: If the study cannot be named, or a name could be misread.
    """
    _refuse_unknown_characters(header)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not is_uid(uid := text(header, keyword)):
            raise InvalidEvidence(f"the source's {keyword} is {uid[:80]!r}, which is no UID")
    taken = _lean(header, ("SpecificCharacterSet", "SyntheticData"))
    wrong: list[Nonconforming] = []
    for keyword in (*MAY_BE_EMPTY, *_ALSO_CARRIED, *EQUIPMENT):
        if keyword in header and not _conforms(header, keyword):
            if keyword not in EQUIPMENT:
                wrong.append(Nonconforming(keyword, _raw(header, keyword)))
        elif keyword in header:
            taken.add(header[keyword])
    missing = tuple(keyword for keyword in MAY_BE_EMPTY if keyword not in header)
    for keyword in MAY_BE_EMPTY:
        if keyword not in taken:
            setattr(taken, keyword, None)
    if not beside.isascii():
        taken.decode()
        taken.SpecificCharacterSet = "ISO_IR 192"
    return Source(taken, missing, tuple(wrong))


def lean_images(headers: Iterable[Dataset]) -> list[Dataset]:
    """Of each image what a Segmentation needs to lie where it lies.

    A single photograph of a class that allows several frames, as of the fundus, has no functional groups, which
    highdicom asks for by the class alone: it gets one with empty Pixel Measures, to be taken out of what is made.
    """
    lean = [_lean(header, _IMAGE) for header in headers]
    for image in lean:
        is_placed = "SharedFunctionalGroupsSequence" in image or "ImagePositionPatient" in image
        if not is_placed and int(image.get("NumberOfFrames") or 1) == 1:
            image.NumberOfFrames = 1
            nothing = Dataset()
            nothing.PixelMeasuresSequence = [Dataset()]
            image.SharedFunctionalGroupsSequence = [nothing]
    return lean


def _lean(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """A copy with some elements alone; what is empty is left out: an empty frame of reference is none."""
    lean = Dataset()
    for keyword in keywords:
        element = _element(header, keyword)
        if element is not None and not element.is_empty:
            lean.add(element)
    return lean


def _element(header: Dataset, keyword: str) -> DataElement | None:
    tag = tag_of(keyword)
    try:
        return header[tag] if tag is not None and tag in header else None
    except Exception:
        return None  # damaged


def _refuse_unknown_characters(header: Dataset) -> None:
    declared = header.get("SpecificCharacterSet") or ""
    for name in [declared] if isinstance(declared, str) else declared:
        if name not in python_encoding:
            raise InvalidEvidence(
                f"the Specific Character Set {name!r} is unknown, so the patient's name could be misread"
            )


def _conforms(header: Dataset, keyword: str) -> bool:
    """Whether the value keeps the rules of its VR (PS3.5 6.2), its multiplicity and its enumeration."""
    element = _element(header, keyword)
    if element is None or dictionary_VR(keyword) != element.VR:
        return False
    if element.VR == "SQ" or element.is_empty:
        return True
    if element.VM > 1 and dictionary_VM(keyword) == "1":
        return False
    values = element.value if element.VM > 1 else [element.value]
    return all(_is_valid(element.VR, keyword, value) for value in values)


def _is_valid(vr: str, keyword: str, value: Any) -> bool:
    try:
        validate_value(vr, str(value), config.RAISE)
        if vr in _DATES:
            _DATES[vr](str(value))  # a date that no calendar has, as 19000000
    except (ValueError, OverflowError):
        return False
    if vr == "PN" and any(group.count("^") > 4 for group in str(value).split("=")):
        return False  # five components at most (PS3.5 6.2.1), which pydicom does not count
    return keyword != "PatientSex" or str(value) in _SEXES


def _raw(header: Dataset, keyword: str) -> bytes:
    """The bytes of a value as they came, or its text where pydicom has already replaced them."""
    element = header.get_item(keyword)
    if isinstance(element, RawDataElement):
        return element.value or b""
    if element is None:
        return b""
    value = element.value
    values = list(value) if isinstance(value, MultiValue) else [value]
    return "\\".join(map(str, values)).encode()
