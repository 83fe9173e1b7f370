"""Synthetic studies: marked as such, valid, the same for the same seed, a lesion of the volume that was asked for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipelines import synthetic
from pipelines.synthetic import Lesion, brain_mr, ct_slices, demo_studies
from pipelines.synthetic.anatomy import grow
from pipelines.synthetic.fields import Grid, Space
from pipelines.synthetic.signal import RELAXATION, SEQUENCES, signal_of
from pipelines.synthetic.tissue import Tissue

SMALL = {"slices": 12, "matrix": 64}
# Synthetic Data is younger than the dciodvfy that Debian ships.
UNKNOWN_IN_2022 = "Error - Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)"
LESION = Lesion((34.0, -10.0, 24.0), (18.0, 22.0, 20.0))


def volume(truth: synthetic.Truth, description: str) -> np.ndarray:
    headers = [pydicom.dcmread(file) for file in truth.files]
    chosen = [ds for ds in headers if ds.SeriesDescription == f"SYNTHETIC {description}"]
    return np.stack([ds.pixel_array for ds in sorted(chosen, key=lambda ds: float(ds.ImagePositionPatient[2]))])


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> synthetic.Truth:
    return brain_mr(tmp_path_factory.mktemp("brain"), seed=5, lesion=LESION, **SMALL)


def test_a_study_holds_one_series_per_sequence_and_one_file_per_slice(truth: synthetic.Truth) -> None:
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in truth.files]
    assert {ds.StudyInstanceUID for ds in headers} == {truth.study_uid}
    assert len({ds.SeriesInstanceUID for ds in headers}) == 3
    assert len({ds.SOPInstanceUID for ds in headers}) == len(headers) == 3 * SMALL["slices"]
    assert len({ds.FrameOfReferenceUID for ds in headers}) == 1
    assert {file.parent.name for file in truth.files} == {"1", "2", "3"}


def test_every_object_says_that_it_is_synthetic(truth: synthetic.Truth, tmp_path: Path) -> None:
    for file in (*truth.files, *ct_slices(tmp_path, count=2, size=64, seed=1)):
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        assert ds.SyntheticData == "YES"
        assert str(ds.PatientName).startswith("SYNTHETIC^")
        assert ds.PatientID.startswith("SYN-")
        assert ds.SeriesDescription.startswith("SYNTHETIC")
        assert ds.StudyDescription.startswith("SYNTHETIC")


def test_a_patient_that_could_be_real_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SYN-"):
        brain_mr(tmp_path, seed=1, lesion=None, patient="1234567", **SMALL)


def test_the_same_seed_makes_the_same_bytes(truth: synthetic.Truth, tmp_path: Path) -> None:
    again = brain_mr(tmp_path, seed=5, lesion=LESION, **SMALL)
    assert [f.read_bytes() for f in again.files] == [f.read_bytes() for f in truth.files]
    assert np.array_equal(again.mask, truth.mask)


def test_another_seed_is_another_study_and_another_head(truth: synthetic.Truth, tmp_path: Path) -> None:
    other = brain_mr(tmp_path, seed=6, lesion=LESION, **SMALL)
    assert other.study_uid != truth.study_uid
    assert not np.array_equal(volume(other, "FLAIR"), volume(truth, "FLAIR"))


def test_a_sequence_left_out_leaves_the_others_as_they_were(truth: synthetic.Truth, tmp_path: Path) -> None:
    fewer = brain_mr(tmp_path, seed=5, lesion=LESION, sequences=("FLAIR",), **SMALL)
    assert fewer.study_uid == truth.study_uid
    assert [f.read_bytes() for f in fewer.files] == [f.read_bytes() for f in truth.files if f.parent.name == "2"]


def test_a_sequence_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'DWI'"):
        brain_mr(tmp_path, seed=1, lesion=None, sequences=("DWI",), **SMALL)


@pytest.mark.parametrize("cubic_centimetres", [10, 30, 60])
def test_the_lesion_has_the_volume_that_was_asked_for(tmp_path: Path, cubic_centimetres: float) -> None:
    radius = (cubic_centimetres * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    lesion = Lesion((30.0, -5.0, 26.0), (radius, radius, radius))
    truth = brain_mr(tmp_path, seed=3, lesion=lesion, sequences=("FLAIR",), slices=24, matrix=96)
    header = pydicom.dcmread(truth.files[0], stop_before_pixels=True)
    voxel = float(np.prod([*map(float, header.PixelSpacing), float(header.SliceThickness)]))
    assert truth.mask.sum() * voxel / 1000 == pytest.approx(truth.volume_cm3, rel=1e-3)
    assert truth.volume_cm3 == pytest.approx(cubic_centimetres, abs=voxel / 1000)


def test_the_mask_lies_where_the_headers_say_that_the_lesion_is(truth: synthetic.Truth) -> None:
    flair = sorted((f for f in truth.files if f.parent.name == "2"), key=lambda f: f.name)
    header = pydicom.dcmread(flair[0], stop_before_pixels=True)
    frame, row, column = np.argwhere(truth.mask).mean(axis=0)
    origin = np.array(header.ImagePositionPatient, float)
    pixel = np.array(header.PixelSpacing, float)
    centre = origin + np.array([column * pixel[1], row * pixel[0], frame * float(header.SliceThickness)])
    assert np.linalg.norm(centre - LESION.centre_mm) < 8  # its edge is uneven on purpose


def test_the_lesion_is_bright_on_flair_and_dark_on_t1(truth: synthetic.Truth) -> None:
    white = grow(Grid(**SMALL), 5).shares[Tissue.WHITE] > 0.95
    white &= ~truth.mask
    flair, t1 = volume(truth, "FLAIR"), volume(truth, "T1 PRE")
    assert np.median(flair[truth.mask]) > 1.5 * np.median(flair[white])
    assert np.median(t1[truth.mask]) < 0.85 * np.median(t1[white])


def test_a_random_lesion_has_ten_to_sixty_cubic_centimetres_and_fits(tmp_path: Path) -> None:
    for seed in range(4):
        truth = brain_mr(tmp_path / str(seed), seed=seed, lesion="random", sequences=("FLAIR",), **SMALL)
        assert 9.5 < truth.volume_cm3 < 60.5
        assert truth.lesion is not None


def test_a_lesion_larger_than_the_brain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        brain_mr(tmp_path, seed=1, lesion=Lesion((0.0, 0.0, 0.0), (90.0, 90.0, 90.0)), **SMALL)


def test_cerebrospinal_fluid_is_nulled_on_flair() -> None:
    signals = {t: signal_of(RELAXATION[t], SEQUENCES["FLAIR"]) for t in (Tissue.CSF, Tissue.WHITE, Tissue.LESION)}
    assert signals[Tissue.CSF] < 0.2 * signals[Tissue.WHITE] < signals[Tissue.WHITE] < signals[Tissue.LESION]


def test_vessels_shine_only_after_contrast() -> None:
    head = grow(Grid(12, 128), 2)
    vessel = head.shares[Tissue.VESSEL] > 0.7
    assert vessel.any()
    before, after = (synthetic.acquire(head, SEQUENCES[name], 2)[vessel] for name in ("T1 PRE", "T1 POST"))
    assert np.median(after) > 2 * np.median(before)


def test_the_shares_of_tissues_add_up_to_one() -> None:
    shares = grow(Grid(6, 64), 9).shares
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-4)


def test_the_signed_distance_of_an_ellipsoid_is_exact_on_a_sphere() -> None:
    space = Space(*(np.asarray(a, np.float32) for a in np.broadcast_arrays(*Grid(8, 64).axes())))
    distance = space.ellipsoid((5, -3, 2), (30, 30, 30))
    exact = np.sqrt((space.u - 5) ** 2 + (space.v + 3) ** 2 + (space.w - 2) ** 2) - 30
    near = np.abs(exact) < 3
    np.testing.assert_allclose(distance[near], exact[near], atol=0.01)


def test_ct_slices_hold_water_fat_and_noise(tmp_path: Path) -> None:
    first, second = (pydicom.dcmread(f) for f in ct_slices(tmp_path, count=2, size=256, seed=1))
    a, b = (ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in (first, second))
    liver = (slice(115, 135), slice(75, 95))
    assert np.mean(a[liver]) == pytest.approx(60, abs=5)
    assert 8 < np.std(a[liver]) < 20
    assert not np.array_equal(a[liver], b[liver])
    assert float(second.ImagePositionPatient[2]) > float(first.ImagePositionPatient[2])


def test_the_demonstration_has_a_lesion_none_and_a_sequence_missing(tmp_path: Path) -> None:
    studies = demo_studies(tmp_path, slices=6, matrix=48)
    assert len({t.study_uid for t in studies}) == len(studies) >= 5
    assert all(t.title for t in studies)
    series = [{f.parent.name for f in t.files} for t in studies]
    assert {"1", "2", "3"} in series
    assert {"1", "2"} in series
    assert {"1", "3"} in series
    assert any(t.lesion is None and not t.mask.any() for t in studies)
    assert max(t.volume_cm3 for t in studies) > 3 * min(t.volume_cm3 for t in studies if t.lesion)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(truth: synthetic.Truth, tmp_path: Path) -> None:
    first_of_each = {file.parent.name: file for file in truth.files}
    for file in (*first_of_each.values(), *ct_slices(tmp_path, count=1, size=64, seed=1)):
        report = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
        complaints = [line for line in (report.stdout + report.stderr).splitlines() if line.startswith("Error")]
        complaints = [line for line in complaints if not line.startswith(UNKNOWN_IN_2022)]
        assert complaints == [], f"{file.parent.name}: {complaints}"
