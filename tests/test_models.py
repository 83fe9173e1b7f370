"""``wetread models``: what is installed is whole or said to be damaged, and the version in use is what reads."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.models.installed import SHIPPED, Installed, ModelFault, Models
from pipelines.mr_brain import CARD
from pipelines.registry import load, own_card
from tests.test_cli import run

USE = "pipelines.mr_brain:BrainTumour"


def version(folder: Path, number: str, **changed: object) -> Path:
    """The shipped weights under another version, as a site would bring its own."""
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "ours.json"
    card.write_text(json.dumps(json.loads(CARD.read_text()) | {"version": number} | changed))
    shutil.copyfile(CARD.with_suffix(".safetensors"), folder / "ours.safetensors")
    return card


def nothing(_: Installed) -> None:
    """No pipeline is asked."""


def wetread(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    settings = cwd / "settings.toml"
    settings.write_text('[node]\ndata = "data"\n')
    return run("--settings", settings, "models", *arguments, cwd=cwd)


def test_what_ships_is_listed_with_its_terms_and_is_whole(tmp_path: Path) -> None:
    for each in Models(tmp_path).all():
        assert each.is_shipped
        assert each.fault() is None
        assert each.terms != "not said"
    answer = wetread("list", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "mr_brain" in answer.stdout
    assert "verified" in answer.stdout
    assert "mr_brain 1.1.0: non-commercial" in answer.stdout
    assert wetread("verify", cwd=tmp_path).returncode == 0
    assert "# Model card: mr_brain" in wetread("show", "mr_brain", cwd=tmp_path).stdout


def test_a_sites_version_is_imported_promoted_used_and_rolled_back(tmp_path: Path) -> None:
    card = version(tmp_path / "theirs", "1.2.0", present_from=0.5)
    assert wetread("import", card, cwd=tmp_path).returncode == 0
    models = Models(tmp_path / "data/models")
    assert models.in_use("mr_brain") == "1.1.0"
    assert load(f"{USE}@{models.folder}").algorithm.version == "1.1.0"

    answer = wetread("promote", "mr_brain", "1.2.0", cwd=tmp_path)
    assert "1.2.0 is in use" in answer.stdout
    reader = load(f"{USE}@{models.folder}")
    assert reader.algorithm.version == "1.2.0"
    assert reader.algorithm.weights_digest != load(USE).algorithm.weights_digest  # another device, in every report

    assert "1.1.0 is in use again" in wetread("rollback", "mr_brain", cwd=tmp_path).stdout
    assert load(f"{USE}@{models.folder}").algorithm.version == "1.1.0"
    told = [(each["event"], each["version"], each.get("before")) for each in models.history("mr_brain")]
    assert told == [("imported", "1.2.0", None), ("promoted", "1.2.0", "1.1.0"), ("rolled back", "1.1.0", "1.2.0")]
    again = wetread("rollback", "mr_brain", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "nothing to go back to" in again.stderr


def test_damaged_weights_are_found_and_never_imported_nor_promoted(tmp_path: Path) -> None:
    card = version(tmp_path / "theirs", "1.2.0")
    models = Models(tmp_path / "data/models")
    taken = models.add(card, nothing)
    with taken.weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    answer = wetread("verify", cwd=tmp_path)
    assert answer.returncode == 1
    assert "mr_brain 1.2.0: the SHA-256 of mr_brain-1.2.0.safetensors is " in answer.stdout
    assert "mr_brain 1.1.0: verified" in answer.stdout
    assert "damaged" in wetread("list", cwd=tmp_path).stdout
    with pytest.raises(ModelFault, match="damaged and not promoted"):
        models.promote("mr_brain", "1.2.0", nothing)
    with pytest.raises(ModelFault, match="is not imported: the SHA-256"):
        models.add(version(tmp_path / "torn", "1.2.0", sha256="0" * 64), nothing)
    assert [each.version for each in models.of("mr_brain")] == ["1.1.0", "1.2.0"]


def test_weights_that_no_pipeline_loads_are_not_imported(tmp_path: Path) -> None:
    card = version(tmp_path / "theirs", "1.2.0")
    pickled = b"\x80\x04cos\nsystem\n."
    (tmp_path / "theirs/ours.safetensors").write_bytes(pickled)
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": hashlib.sha256(pickled).hexdigest()}))
    answer = wetread("import", card, cwd=tmp_path)
    assert answer.returncode == 1
    assert "mr_brain cannot load" in answer.stderr
    assert not (tmp_path / "data/models/mr_brain").exists()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": "1.1.0", "threshold": 0.9}, "installed already, with another content"),
        ({"version": "../../1"}, "version is '../../1'"),
        ({"name": "mr_spine"}, "mr_spine: no such model; installed are "),
        ({"sha256": "abc"}, "not a SHA-256"),
    ],
)
def test_a_card_that_cannot_be_taken_says_why(tmp_path: Path, changed: dict[str, str], why: str) -> None:
    card = version(tmp_path / "theirs", **{"number": "1.2.0"} | changed)  # type: ignore[arg-type]
    with pytest.raises(ModelFault) as fault:
        Models(tmp_path / "models").add(card, nothing)
    assert why in str(fault.value)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("promote", "mr_brain", "9.9.9"), "mr_brain 9.9.9 is not installed; there are 1.1.0"),
        (("promote", "mr_brain", "1.1.0"), "mr_brain 1.1.0 is in use already"),
        (("rollback", "mr_spine"), "mr_spine: no such model"),
        (("show", "mr_brain", "2"), "mr_brain 2 is not installed"),
        (("import", "absent.json"), "absent.json cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, command: tuple[str, ...], why: str) -> None:
    answer = wetread(*command, cwd=tmp_path)
    assert answer.returncode == 1
    assert why in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_promoted_version_that_is_gone_is_never_replaced_in_silence(tmp_path: Path) -> None:
    models = Models(tmp_path / "models")
    models.add(version(tmp_path / "theirs", "1.2.0"), nothing)
    models.promote("mr_brain", "1.2.0", nothing)
    shutil.rmtree(tmp_path / "models/mr_brain/1.2.0")
    with pytest.raises(ModelFault, match=r"mr_brain 1\.2\.0 is not installed"):
        load(f"{USE}@{models.folder}")
    (tmp_path / "models/active.json").write_text("{")
    with pytest.raises(ModelFault, match="which versions are in use is not known"):
        load(f"{USE}@{models.folder}")


def test_a_pipelines_own_card_is_the_default_of_its_first_argument() -> None:
    assert own_card(USE) == SHIPPED / "mr_brain-1.1.0.json"
