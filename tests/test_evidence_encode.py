"""Datasets to files: byte for byte what pydicom writes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from pipelines.evidence.encode import part10
from tests.findings import FORMS, blob, image, lesion, outlined, slices, study_of, written


def by_pydicom(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def with_meta(dataset: Dataset) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def item(**elements: object) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("preset", FORMS)
def test_evidence_is_written_as_pydicom_writes_it(tmp_path, preset):
    study = study_of(slices(), tmp_path / "in")
    series = study.series[0]
    found = outlined(series, lesion(blob(series), "one"), lesion(blob(series, 2), "two"))
    written(found, study, tmp_path / "out", preset=preset)
    for path in (tmp_path / "out").glob("*.dcm"):
        read = dcmread(path)
        read.walk(lambda dataset, element: None)  # looks at every value, so that none is copied as it is
        assert b"".join(part10(read)) == by_pydicom(read) == path.read_bytes()


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientName": "Müller^Eva", "StudyDescription": "Schädel", "PatientComments": "odd"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Eva=山田^太郎", "StudyDescription": "頭"},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎", "StudyID": "~1"},
        {"SpecificCharacterSet": "ISO_IR 13", "StudyDescription": "~ ﾔﾏﾀﾞ", "StudyID": "1~"},
        {"ImageType": ["A", "B"], "PixelSpacing": [0.5, "0.70"], "ContentLabel": "", "SeriesNumber": 12},
        {"PixelPaddingValue": 7, "LossyImageCompressionRatio": [1.5, 2]},
        {"RecommendedDisplayCIELabValue": [1, 2, 3], "FrameIncrementPointer": 0x00181063, "SelectorFDValue": [1.5, 2]},
        {"OtherPatientIDsSequence": [item(PatientID="1"), item(), item(TypeOfPatientID="TEXT")]},
        {"GraphicData": np.arange(20000, dtype=np.float32).tolist()},  # more than 64 KiB: pydicom makes it UN
    ],
)
def test_whatever_stands_in_a_header_is_written_as_pydicom_writes_it(elements):
    dataset = with_meta(image(1, **{"PixelData": b"\1\2", **elements}))
    assert b"".join(part10(dataset)) == by_pydicom(dataset)


def test_what_came_out_of_a_file_and_was_not_looked_at_goes_as_it_came(tmp_path):
    source = with_meta(image(1, ProcedureCodeSequence=[item(CodeValue="1", CodeMeaning="Schädel")]))
    source.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    carried = with_meta(image(2))
    carried.ProcedureCodeSequence = dcmread(tmp_path / "source.dcm").ProcedureCodeSequence
    assert b"".join(part10(carried)) == by_pydicom(carried)


def test_a_sequence_that_items_share_is_whole_in_each():
    shared = [item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="one")]
    first, second = item(ValueType="CODE"), item(ValueType="NUM")
    first.ConceptNameCodeSequence = shared
    second.add(first["ConceptNameCodeSequence"])
    dataset = with_meta(image(1, ContentSequence=[first, second]))
    written_as = b"".join(part10(dataset))
    assert written_as == by_pydicom(dataset)
    assert written_as.count(b"99X ") == 2


def test_another_transfer_syntax_is_refused():
    dataset = with_meta(image(1))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(ValueError, match="is not written here"):
        list(part10(dataset))
