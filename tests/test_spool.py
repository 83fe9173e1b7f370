"""The spool: what it has promised it keeps, under the name of its content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from node.errors import CannotUnderstand, DataSetDoesNotMatch, InvalidUid, OutOfResources
from node.spool import Arrival, Origin, Spool
from tests.peers import ROOT, wait_until
from tests.senders import EXPLICIT, ct, encoded
from tests.slices import CT, saved


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reserve_bytes=0)


def kept(spool: Spool, number: int = 1, *, caller: str = "CT1", address: str = "10.0.0.7") -> Arrival:
    raw = encoded(ct(number))
    with spool.receive(sop_class=CT, sop_uid=f"1.2.3.4.{number}", transfer_syntax=EXPLICIT) as part:
        part.write(raw)
        return part.keep(part.head(), Origin(caller, address, 1_700_000_000.25))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_named_by_the_sha256_of_its_bytes(spool: Spool) -> None:
    path = spool.path(kept(spool).sha256)
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_a_part_10_file_with_the_dataset_as_it_came(spool: Spool) -> None:
    path = spool.path(kept(spool).sha256)
    assert path.read_bytes().endswith(encoded(ct(1)))
    assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
    read = dcmread(path)
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == "1.2.3.4.1"
    assert read.file_meta.FileMetaInformationGroupLength == len(path.read_bytes()) - len(encoded(ct(1))) - 144


def test_an_arrival_says_where_the_instance_belongs(spool: Spool) -> None:
    arrival = kept(spool)
    assert (arrival.study_uid, arrival.series_uid, arrival.sop_uid) == ("1.2.3", "1.2.3.4", "1.2.3.4.1")
    assert (arrival.sop_class, arrival.modality, arrival.transfer_syntax) == (CT, "CT", EXPLICIT)
    assert arrival.size == spool.path(arrival.sha256).stat().st_size
    assert "P1" not in str(arrival)
    assert "Test^One" not in str(arrival)


def test_the_same_content_twice_is_one_file(spool: Spool) -> None:
    first, second = kept(spool), kept(spool, caller="PACS")
    assert first.sha256 == second.sha256
    assert len(files(spool.objects)) == 1
    assert files(spool.incoming) == []
    assert {arrival.caller for arrival in spool.unrecorded()} == {"CT1", "PACS"}


def test_what_is_not_kept_leaves_nothing(spool: Spool) -> None:
    with spool.receive(sop_class=CT, sop_uid="1.2.3", transfer_syntax=EXPLICIT) as part:
        part.write(b"abc")
        assert len(files(spool.incoming)) == 1
    assert files(spool.root) == []


def test_what_the_ledger_was_not_told_is_found_after_a_crash_with_its_origin(spool: Spool) -> None:
    told, untold = kept(spool, 1), kept(spool, 2, caller="CT, ROOM/2~", address="fe80::1%eth0")
    spool.recorded([told])
    again = Spool(spool.root, reserve_bytes=0)
    again.sweep()
    assert list(again.unrecorded()) == [untold]


def test_everything_can_be_listed_for_a_new_ledger(spool: Spool) -> None:
    arrivals = [kept(spool, number) for number in (1, 2, 3)]
    spool.recorded(arrivals)
    assert list(spool.unrecorded()) == []
    assert {arrival.sha256 for arrival in spool.everything()} == {arrival.sha256 for arrival in arrivals}


def test_an_object_torn_by_a_power_cut_goes_to_quarantine(spool: Spool) -> None:
    torn, whole = kept(spool, 1), kept(spool, 2)
    os.truncate(spool.path(torn.sha256), 300)
    assert list(spool.unrecorded()) == [whole]
    assert not spool.path(torn.sha256).exists()
    assert len(files(spool.quarantine)) == 1
    assert kept(spool, 1).sha256 == torn.sha256  # and it may be sent again


def test_an_object_whose_name_was_lost_gets_it_back(spool: Spool) -> None:
    arrival = kept(spool)
    spool.path(arrival.sha256).unlink()
    assert list(spool.unrecorded()) == [arrival]
    assert hashlib.sha256(spool.path(arrival.sha256).read_bytes()).hexdigest() == arrival.sha256


def test_a_torn_object_is_replaced_when_it_is_sent_again(spool: Spool) -> None:
    arrival = kept(spool)
    path = spool.path(arrival.sha256)
    (spool.pending / next(spool.pending.iterdir()).name).unlink()
    os.truncate(path, 0)
    kept(spool)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == arrival.sha256


def test_a_sweep_removes_an_object_whose_receiver_died_before_it_was_promised(spool: Spool) -> None:
    arrival = kept(spool)
    path, part = spool.path(arrival.sha256), spool.incoming / "part"
    (link,) = files(spool.pending)
    link.rename(part)  # as it is between the object's name and its entry in the journal
    spool.sweep()
    assert not path.exists()
    assert files(spool.incoming) == []
    kept(spool)
    assert path.exists()  # it may come again


def test_a_sweep_removes_what_a_dead_process_was_receiving_and_spares_the_living(spool: Spool) -> None:
    (spool.incoming / "dead.part").write_bytes(b"half")
    with spool.receive(sop_class=CT, sop_uid="1.2.3", transfer_syntax=EXPLICIT) as part:
        script = "import sys; from pathlib import Path; from node.spool import Spool; Spool(Path(sys.argv[1])).sweep()"
        subprocess.run([sys.executable, "-c", script, str(spool.root)], cwd=ROOT, check=True)
        assert files(spool.incoming) == [Path(part.path)]


def test_keep_takes_a_file_that_somebody_else_wrote(spool: Spool) -> None:
    part = spool.incoming / "mine.part"
    content = saved(ct(), spool.root / "x.dcm").read_bytes()
    part.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert spool.keep(part, sha256).read_bytes() == content
    assert spool.keep(_copy(content, part), sha256) == spool.path(sha256)
    assert files(spool.incoming) == []


def _copy(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def test_a_file_can_be_added_with_its_dataset_as_it_is(spool: Spool, tmp_path: Path) -> None:
    file = saved(ct(5), tmp_path / "5.dcm")
    arrival = spool.add(file, Origin("CT1", "127.0.0.1", time.time()))
    assert spool.path(arrival.sha256).read_bytes().endswith(encoded(ct(5)))
    assert arrival.sop_uid == "1.2.3.4.5"


def test_below_the_reserve_nothing_is_received(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=1 << 60)
    with pytest.raises(OutOfResources, match="reserve"):
        spool.receive(sop_class=CT, sop_uid="1.2.3", transfer_syntax=EXPLICIT)


def test_the_spool_is_for_its_owner_only(spool: Spool) -> None:
    arrival = kept(spool)
    for path in (spool.root, spool.incoming, spool.objects, spool.pending):
        assert path.stat().st_mode & 0o077 == 0
    assert spool.path(arrival.sha256).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"StudyInstanceUID": None}, DataSetDoesNotMatch),
        ({"SeriesInstanceUID": None}, DataSetDoesNotMatch),
        ({"SOPInstanceUID": None}, DataSetDoesNotMatch),
        ({"StudyInstanceUID": "../../../etc"}, InvalidUid),
        ({"SeriesInstanceUID": "1.02.3"}, InvalidUid),
        ({"StudyInstanceUID": "1." + "2" * 64}, InvalidUid),
        ({"Rows": 17}, CannotUnderstand),
        ({"NumberOfFrames": 2}, CannotUnderstand),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_instance_that_cannot_be_placed_is_refused(
    spool: Spool, tmp_path: Path, change: dict[str, object], fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        spool.add(saved(ct(1, **change), tmp_path / "x.dcm"))
    assert files(spool.root) == []


def test_a_dataset_that_is_cut_anywhere_is_refused_or_ends_before_its_pixels(spool: Spool) -> None:
    raw = encoded(ct(1))
    pixels = raw.index(b"\xe0\x7f\x10\x00")
    for cut in range(0, len(raw), 7):
        with spool.receive(sop_class=CT, sop_uid="1.2.3.4.1", transfer_syntax=EXPLICIT) as part:
            part.write(raw[:cut])
            try:
                part.head()
            except (CannotUnderstand, DataSetDoesNotMatch):
                continue
            assert cut <= pixels, f"cut at {cut} of {len(raw)} was taken"


def test_the_patient_key_is_of_the_person_not_of_the_spelling(spool: Spool, tmp_path: Path) -> None:
    def key(**elements: object) -> str:
        return spool.add(saved(ct(1, **elements), tmp_path / "x.dcm")).patient_key

    assert key(PatientName="Test^One") == key(PatientName="Test^One^^") == key(PatientID="P1 ")
    latin = key(PatientName="Müller^Ä", SpecificCharacterSet="ISO_IR 100")
    assert latin == key(PatientName="Müller^Ä", SpecificCharacterSet="ISO_IR 192")
    assert len({latin, key(), key(PatientID="P2"), key(PatientBirthDate="19700102"), key(IssuerOfPatientID="H")}) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("durable", [True, False])
def test_a_power_cut_loses_nothing_that_was_promised(tmp_path: Path, durable: bool) -> None:
    """A copy of the device is what a disk holds after a cut at that instant; the control: without fsync, nothing."""
    disk = _Disk(tmp_path)
    with disk.mounted(disk.image) as folder:
        (folder / "spool").mkdir()
        spool = Spool(folder / "spool", reserve_bytes=0)
        os.sync()
        arrivals = [kept(spool, number) for number in range(20)] if durable else []
        for number in range(0 if durable else 20):
            (folder / "spool" / f"{number}.dcm").write_bytes(encoded(ct(number)))
        disk.cut()
    with disk.mounted(disk.copy) as folder:
        after = Spool(folder / "spool", reserve_bytes=0)
        after.sweep()
        assert sorted(after.unrecorded(), key=lambda one: one.sha256) == sorted(arrivals, key=lambda one: one.sha256)
        for arrival in arrivals:
            content = after.path(arrival.sha256).read_bytes()
            assert hashlib.sha256(content).hexdigest() == arrival.sha256
        if not durable:
            assert not [path for path in (folder / "spool").glob("*.dcm") if path.stat().st_size]


class _Disk:
    """An ext4 file system in a file: what lies in the file is what the disk has."""

    def __init__(self, folder: Path) -> None:
        self.image, self.copy, self._mounts = folder / "disk.img", folder / "cut.img", folder
        with self.image.open("wb") as image:
            image.truncate(64 << 20)
        if subprocess.run(["mkfs.ext4", "-q", str(self.image)], capture_output=True, check=False).returncode:
            pytest.skip("mkfs.ext4 does not work here")

    def cut(self) -> None:
        subprocess.run(["cp", "--sparse=always", str(self.image), str(self.copy)], check=True)

    def mounted(self, image: Path) -> _Mount:
        return _Mount(image, self._mounts / f"{image.stem}.mounted")


class _Mount:
    def __init__(self, image: Path, folder: Path) -> None:
        self._image, self._folder = image, folder

    def __enter__(self) -> Path:
        self._folder.mkdir()
        mount = ["mount", "-o", "loop", str(self._image), str(self._folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        return self._folder

    def __exit__(self, *_: object) -> None:
        wait_until(
            lambda: subprocess.run(["umount", str(self._folder)], capture_output=True, check=False).returncode == 0,
            "unmounting",
        )
