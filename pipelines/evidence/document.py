"""Encapsulated PDF (PS3.3 A.45.1): the findings of a run on one page, for sites that want one page. UNVERIFIED."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from pipelines.base import Findings
from pipelines.evidence import codes, content, drawing, shown, wording
from pipelines.evidence.header import Heading, begun
from pipelines.evidence.marks import colours, marks, telling
from pipelines.evidence.onepage import MOST_PICTURES, Plate, Sheet, printed, writable
from pipelines.evidence.told import NOT_EVALUATED, NotEvaluated, Told
from pipelines.evidence.wording import Line
from pipelines.instance import number, text

HEADING = Heading(EncapsulatedPDFStorage, "DOC", "document", 9007, "one page")
_FOOT = (
    "Made by software from these images: {images}; no person has verified it. It is not a diagnosis. "
    "Where it differs from the Measurement Report of the same study, that one counts."
)


def documents(told: Told) -> list[Dataset]:
    """One, whatever the outcome.

    Raises:
        BadPixels: If an image that is to be shown cannot be decoded.
    """
    made = begun(told, HEADING)
    made.ConversionType, made.BurnedInAnnotation = "WSD", "YES"  # it names the patient
    made.DocumentTitle = f"AI findings of {wording.signature(told.stamp.algorithm)}, not verified"
    made.ConceptNameCodeSequence = [content.coded(codes.IMAGING_MEASUREMENT_REPORT)]
    made.VerificationFlag, made.AcquisitionDateTime = "UNVERIFIED", None
    made.SourceInstanceSequence = [
        content.instance(text(each, "SOPClassUID"), text(each, "SOPInstanceUID"))
        for series in told.read
        for each in series.instances
    ]
    file = printed(_sheet(told))
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument = file + b"\0" * (len(file) % 2)
    made.EncapsulatedDocumentLength = len(file)
    told.stamp.put_on(made)
    return [made]


def _sheet(told: Told) -> Sheet:
    outcome, algorithm = told.outcome, told.stamp.algorithm
    images = ", ".join(f"{_written(series.description)} ({len(series.instances)})" for series in told.read)
    foot = _FOOT.format(images=images)
    title = f"Findings of {wording.signature(algorithm)}"
    if isinstance(outcome, NotEvaluated):
        why = f"{NOT_EVALUATED[outcome.status][1]}: {outcome.reason}"
        return Sheet(title, list(_whose(told)), [Line(why)], {}, (), foot)
    lines = [*wording.told(outcome), *map(Line, outcome.notes)]
    return Sheet(title, list(_whose(told)), lines, colours(outcome), list(_plates(outcome)), foot)


def _whose(told: Told) -> Iterator[tuple[str, str]]:
    header, stamp = told.stamp.source.header, told.stamp
    yield "Patient", _name(header)
    yield "Study", _written(text(header, "StudyDescription"))
    yield "Patient ID", _written(text(header, "PatientID"))
    yield "Study date", _date(text(header, "StudyDate"))
    yield "Born", _date(text(header, "PatientBirthDate"))
    yield "Accession", _written(text(header, "AccessionNumber"))
    yield "Algorithm", wording.signature(stamp.algorithm)
    yield "Weights", f"SHA-256 {stamp.algorithm.weights_digest[:16]}…"
    yield "Read at", stamp.started.strftime("%Y-%m-%d %H:%M")


def _name(header: Dataset) -> str:
    """Its alphabetic group (PS3.5 6.2.1.1), as people write it."""
    alphabetic = text(header, "PatientName").split("=")[0]
    parts = [part.strip() for part in alphabetic.split("^")]
    return _written(", ".join(filter(None, [parts[0], " ".join(filter(None, parts[1:3]))])))


def _written(words: str) -> str:
    if not words:
        return "not said"
    return words if writable(words) else "stands in the study, in letters that this page lacks"


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else "not said"


def _plates(findings: Findings) -> Iterator[Plate]:
    found = marks(findings)
    places = telling(findings, found, most=MOST_PICTURES)
    for place, picture in zip(places, shown.pictures(findings.series, places), strict=True):
        frame = findings.series.frames[place]
        here = [mark for mark in found if mark.place == place]
        said = [line.words for line in wording.told_of_image(findings, frame)]
        names = ", ".join(dict.fromkeys([*(mark.name for mark in here), *said]))
        about = wording.image_name(frame)
        yield Plate(drawing.marked(picture, frame, here), _written(f"{about}: {names}" if names else about))


def document_faults(made: Dataset) -> Iterable[str]:
    """What is wrong with a one-page report."""
    file = made.get("EncapsulatedDocument") or b""
    if not file.startswith(b"%PDF-"):
        yield "the document is no PDF"
    if len(file) != (length := int(number(made, "EncapsulatedDocumentLength") or 0)) + length % 2:
        yield "the document has another length than it says"
    if text(made, "VerificationFlag") != "UNVERIFIED":
        yield "Verification Flag is not UNVERIFIED: no person has looked"
    if text(made, "BurnedInAnnotation") != "YES":
        yield "the page names the patient, and Burned In Annotation does not say so"
    if "NOT VERIFIED" not in text(made, "DocumentTitle").upper():
        yield "the title does not say that it is not verified"
