"""The audit trail: messages as PS3.15 has them, records that nobody changes unseen, from several processes at once."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree
from pydicom.sr._concepts_dict import concepts

from node.audit import (
    Act,
    Actor,
    Event,
    Source,
    Trail,
    Transfer,
    accessed,
    activity,
    administered,
    alarm,
    authenticated,
    begins,
    deleted,
    exported,
    imported,
    log_used,
    queried,
    transferred,
)
from node.errors import Unavailable
from tests.peers import ROOT

CT1, NODE, ANNA = Actor("CT1", "10.1.2.11", "DICOM"), Actor("WETREAD", "::1"), Actor("anna", "desk-7", "web")
STUDY = Transfer("1.2.3", "P<1>&\"'\x00", {"1.2.840.10008.5.1.4.1.1.2": 324})
EVERY_KIND = {
    "Application Activity": activity("listen", starts=True, by=ANNA),
    "Audit Log Used": log_used(ANNA, "1.2.3"),
    "Begin Transferring DICOM Instances": begins(STUDY, sender=NODE, receiver=CT1),
    "DICOM Instances Accessed": accessed(STUDY, Act.READ, by=NODE, what="mr_brain 1.0.0"),
    "DICOM Instances Transferred": transferred(STUDY, Act.CREATE, sender=CT1, receiver=NODE),
    "DICOM Study Deleted": deleted(STUDY, by=NODE, what="images"),
    "Export": exported(STUDY, by=NODE, to="mailto:ward@hospital.example"),
    "Import": imported(STUDY, by=ANNA, source="/media/cd"),
    "Query": queried("1.2.840.10008.5.1.4.1.2.2.1", "StudyInstanceUID=1.2.3", by=NODE, asked=CT1),
    "Security Alert": alarm("node authentication", "unknown caller", reporter=NODE, culprit=CT1, where="10.1.2.11"),
    "User Authentication": authenticated(ANNA, reason="the password is wrong"),
}


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source("WETREAD", "ct-node"))


def change(trail: Trail, sql: str, *values: object) -> None:
    db = sqlite3.connect(trail.folder / "trail.sqlite")
    db.execute(sql, values)
    db.commit()
    db.close()


@pytest.fixture
def ten(trail: Trail) -> Trail:
    trail.record(*(accessed(Transfer(f"1.2.{n}", f"P{n}"), Act.READ, by=ANNA) for n in range(1, 11)))
    return trail


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_message_is_as_the_schema_of_the_standard_wants_it(name: str) -> None:
    schema = etree.RelaxNG(file=str(ROOT / "tests" / "audit_message.rng"))
    for event in (EVERY_KIND[name], administered("drain", "ct-node/cpu", by=ANNA, reason="no\nsuch <worker>")):
        message = etree.fromstring(event.xml(Source(), 1.5))
        assert schema.validate(message), schema.error_log
    assert EVERY_KIND[name].id.meaning == name


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_code_of_dicom_is_in_the_dictionary_with_its_meaning(name: str) -> None:
    known = {(value, meaning) for named in concepts["DCM"].values() for value, (meaning, _) in named.items()}
    message = etree.fromstring(EVERY_KIND[name].xml(Source(), 1.5))
    codes = message.xpath("//*[@codeSystemName='DCM']")
    assert codes
    assert {(code.get("csd-code"), code.get("displayName")) for code in codes} <= known


def test_a_record_says_who_did_what_and_when(trail: Trail) -> None:
    trail.record(EVERY_KIND["DICOM Instances Transferred"])
    (entry,) = trail.entries()
    said = entry.as_json()
    assert [one["name"] for one in said["who"]] == ["CT1", "WETREAD"]
    assert said["what"] == ["1.2.3", "P<1>&\"'?"]
    assert (said["instances"], said["action"], said["study_uid"]) == (324, "C", "1.2.3")


def test_an_untouched_trail_is_whole(ten: Trail) -> None:
    found = ten.verify()
    assert (found.broken, found.count, found.first, found.last) == (None, 10, 1, 10)


@pytest.mark.parametrize("n", range(1, 11))
def test_the_first_record_that_was_changed_is_named(ten: Trail, n: int) -> None:
    change(ten, "UPDATE records SET message = replace(message, 'anna', 'eve') WHERE n >= ?", n)
    assert ten.verify().broken == n


@pytest.mark.parametrize("n", range(1, 11))
def test_a_record_that_was_removed_is_named(ten: Trail, n: int) -> None:
    change(ten, "DELETE FROM records WHERE n = ?", n)
    assert ten.verify().broken == n


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE records SET study = '1.2.99' WHERE n = 4",
        "UPDATE records SET at = at - 86400 WHERE n = 4",
        "UPDATE records SET event = 'Query' WHERE n = 4",
        "UPDATE records SET digest = (SELECT digest FROM records WHERE n = 5) WHERE n = 4",
    ],
)
def test_what_a_record_is_found_by_cannot_be_changed_either(ten: Trail, sql: str) -> None:
    change(ten, sql)
    assert ten.verify().broken == 4


def test_two_records_that_changed_places_are_found(ten: Trail) -> None:
    for old, new in ((4, 0), (5, 4), (0, 5)):
        change(ten, "UPDATE records SET n = ? WHERE n = ?", new, old)
    assert ten.verify().broken == 4


def test_the_end_cannot_be_cut_off_with_its_mark(ten: Trail) -> None:
    change(ten, "DELETE FROM records WHERE n > 7")
    change(ten, "UPDATE marks SET n = 7, digest = (SELECT digest FROM records WHERE n = 7) WHERE name = 'head'")
    assert ten.verify().broken is not None


def test_a_record_that_was_added_without_the_key_is_found(ten: Trail) -> None:
    change(ten, "INSERT INTO records SELECT 11, at, event, study, message, digest FROM records WHERE n = 10")
    assert ten.verify().broken == 11


def test_a_trail_that_was_removed_as_a_whole_is_found(ten: Trail) -> None:
    (ten.folder / "trail.sqlite").unlink()
    assert ten.verify().broken == 1


def test_an_older_copy_that_was_put_back_is_found_by_what_was_noted_down(ten: Trail) -> None:
    copy = (ten.folder / "trail.sqlite").read_bytes()
    ten.record(log_used(ANNA))
    noted = ten.verify().head
    (ten.folder / "trail.sqlite").write_bytes(copy)
    assert ten.verify().broken is None
    assert ten.verify(noted).broken == 11


def test_a_new_key_does_not_make_a_forged_trail_whole(ten: Trail) -> None:
    (ten.folder / "key").unlink()
    assert "key is gone" in ten.verify().why
    with pytest.raises(Unavailable, match="key of the audit trail is gone"):
        ten.record(log_used(ANNA))


def test_what_is_old_goes_and_the_rest_stays_whole(tmp_path: Path) -> None:
    times = iter([10.0, 20.0, 30.0, 40.0])
    trail = Trail(tmp_path / "audit", Source(), clock=lambda: next(times))
    trail.record(*[log_used(ANNA)] * 4)
    assert trail.purge(before=30.0) == 2
    found = trail.verify()
    assert (found.broken, found.first, found.last) == (None, 3, 4)
    change(trail, "DELETE FROM records WHERE n = 3")
    assert trail.verify().broken == 3


def test_the_last_record_stays_however_old(ten: Trail) -> None:
    assert ten.purge(before=1e12) == 9
    ten.record(log_used(ANNA))
    assert ten.verify().broken is None


def test_several_processes_record_at_once_and_the_chain_is_one(trail: Trail) -> None:
    program = (
        "import sys; from pathlib import Path; from node.audit import *\n"
        "trail = Trail(Path(sys.argv[1]), Source())\n"
        "for n in range(25): trail.record(log_used(Actor(sys.argv[2])))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(trail.folder), name], cwd=ROOT) for name in ("a", "b", "c")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    found = trail.verify()
    assert (found.broken, found.count) == (None, 75)


def test_the_trail_is_for_its_owner_alone(ten: Trail) -> None:
    modes = [path.stat().st_mode & 0o077 for path in (ten.folder, *ten.folder.iterdir())]
    assert not any(modes)


def test_an_act_that_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file where the folder should be")
    done: list[Event] = []
    with pytest.raises(Unavailable, match="cannot be written"), Trail(tmp_path / "audit", Source()).recording():
        done.append(log_used(ANNA))
    assert not done


def test_an_act_that_fails_is_recorded_with_its_reason(trail: Trail) -> None:
    with contextlib.suppress(RuntimeError), trail.recording() as record:
        record(administered("retry", "job 1", by=ANNA, reason="no such job"))
        raise RuntimeError
    assert [entry.as_json()["reason"] for entry in trail.entries()] == ["no such job"]
