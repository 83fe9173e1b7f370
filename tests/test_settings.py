"""Settings: what is written is what is meant, and a mistake is named."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from node import settings, settings_web
from node.errors import BadSettings
from pipelines.forms import PRESETS, Wanted

ROOT = Path(__file__).parents[1]


def with_evidence(evidence: object) -> dict[str, object]:
    return {"destinations": {"PACS": {"protocol": "dicomweb", "url": "http://pacs", "evidence": evidence}}}


def with_oidc(**changed: object) -> dict[str, object]:
    good = {"issuer": "https://login.hospital.example", "client_id": "wetread", "roles": {"viewer": ["radiology"]}}
    return {"web": {"oidc": good | changed}}


def wrong(tables: dict[str, object]) -> str:
    with pytest.raises(BadSettings) as caught:
        settings.parse(tables, "settings.toml")
    return str(caught.value)


def test_the_shipped_file_says_the_defaults() -> None:
    shipped = settings.parse(tomllib.loads((ROOT / "settings.toml").read_text()), "settings.toml")
    assert shipped == settings.Settings()


def test_a_relative_path_is_meant_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[node]\ndata = "kept"\n[node.tls]\ncertificate = "a.pem"\nkey = "/etc/a.key"\n')
    node = settings.load(file)[0].node
    assert node.folder == tmp_path / "kept"
    assert node.tls is not None
    assert (node.tls.certificate, node.tls.key) == (tmp_path / "a.pem", Path("/etc/a.key"))
    file.write_text("")
    assert settings.load(file)[0].node.folder == tmp_path / "data"


def test_every_setting_stands_in_the_shipped_file_with_a_comment() -> None:
    text = (ROOT / "settings.toml").read_text()
    tables = (
        *(settings.Node, settings.Worker, settings.Destination, settings.PipelineLine, settings.ListenerTls),
        *(settings_web.Web, settings_web.Oidc),
    )
    for table in tables:
        for key in table.model_fields:
            assert re.search(rf"^(# )?(\[(node|web)\.)?{key}(\]| = )", text, re.MULTILINE), key


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"node": {"dicom_prot": 1}}, "node.dicom_prot: no such setting; did you mean dicom_port?"),
        ({"node": {"dicom_port": 99999}}, "node.dicom_port is 99999: Input should be less than or equal to 65535"),
        ({"node": {"ae_title": "A" * 17}}, "an AE title has 1 to 16 printable ASCII characters"),
        ({"node": {"bind": "localhost"}}, "node.bind is 'localhost': an IPv4 or IPv6 address"),
        ({"node": {"peers": [{"ae_title": "CT1", "address": "10.0.0.300"}]}}, "node.peers.0.address is '10.0.0.300'"),
        (
            {"node": {"peers": [{"ae_title": "CT1", "address": "10.0.0.3", "count_from": "PACS"}]}},
            'CT1.count_from names "PACS"; destinations: none is defined',
        ),
        (
            {
                "node": {
                    "peers": [
                        {"ae_title": "CT1", "address": "10.0.0.3", "count_from": "WEB"},
                        {"ae_title": "CT1", "address": "10.0.0.4"},
                    ]
                },
                "destinations": {"WEB": {"protocol": "dicomweb", "url": "http://web"}},
            },
            "CT1 stands there twice, with another count_from",
        ),
        ({"node": {"dicom_port": 8114}}, "dicom_port and web_port are both 8114"),
        ({"node": {"quiet_seconds": 5000}}, "quiet_seconds 5000 exceeds longest_wait_seconds 900"),
        ({"node": {"broker": "nonsense"}}, "node.broker is 'nonsense'"),
        (with_oidc(issuer="http://login.example"), "web.oidc.issuer is 'http://login.example': an https:// address"),
        (with_oidc(roles={"boss": ["it"]}), "web.oidc.roles.boss"),
        (with_oidc(roles={}), "roles names no group"),
        (with_oidc(scopes=["profile"]), 'scopes lacks "openid"'),
        (with_oidc(client="x"), "web.oidc.client: no such setting; did you mean client_id?"),
        ({"destinations": {"PACS": {"protocol": "dimse"}}}, "needs ae_title, host, port"),
        ({"destinations": {"PACS": {"protocol": "ftp"}}}, "destinations.PACS.protocol is 'ftp'"),
        (with_evidence("osirix"), "evidence.preset is 'osirix': Input should be 'ohif', 'orthanc', 'air'"),
        (with_evidence({"key_object": True}), "evidence.key_object: no such setting; did you mean key_objects?"),
        (
            with_evidence({"segmentation": "MESH"}),
            'segmentation is "MESH"; it may be off, BINARY, FRACTIONAL, LABELMAP',
        ),
        (with_evidence({"report": "references", "segmentation": "off"}), "refers to segments"),
        (
            {"pipelines": {"mr_brain": {"use": "a:b", "deliver_to": ["PAX"]}}},
            'pipelines.mr_brain.deliver_to names "PAX"; destinations: none is defined',
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(tables: dict[str, object], sentence: str) -> None:
    assert sentence in wrong(tables)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(wrong({"node": {"dicom_port": 0, "quiet": 1}, "wroker": {}}).splitlines()) == 3


def test_a_destination_takes_what_its_preset_and_its_switches_say() -> None:
    def taken(evidence: object) -> Wanted:
        return settings.parse(with_evidence(evidence), "s").destinations["PACS"].evidence.wanted

    assert taken({}) == PRESETS["ohif"] == settings.EvidenceLine().wanted
    assert taken("legacy") == PRESETS["legacy"]
    changed = {"preset": "orthanc", "segmentation": "LABELMAP", "key_objects": False, "pdf": True}
    assert taken(changed) == replace(PRESETS["orthanc"], segmentation="LABELMAP", key_objects=False, pdf=True)
    assert set(settings.EvidenceLine.model_fields) == {"preset", *(each.name for each in fields(Wanted))}
    assert list(PRESETS) == ["ohif", "orthanc", "air", "legacy", "planning"]


def test_a_file_that_is_not_toml_or_not_there_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[node\n")
    with pytest.raises(BadSettings, match=r"broken\.toml: not TOML"):
        settings.load(broken)
    with pytest.raises(BadSettings, match=r"absent\.toml: no such file"):
        settings.load(tmp_path / "absent.toml")


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[node]\nae_title = "MINE"\n')
    monkeypatch.setenv(settings.VARIABLE, str(file))
    assert settings.load()[0].node.ae_title == "MINE"


def test_the_contract_example_is_accepted() -> None:
    text = """
[node]
ae_title = "WETREAD"
bind = "127.0.0.1"
dicom_port = 11112
web_port = 8114
data = "data"
quiet_seconds = 3
peers = [{ ae_title = "CT1", address = "127.0.0.0/8" }]
[destinations.PACS]
protocol = "dimse"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
[destinations.WEB]
protocol = "dicomweb"
url = "http://127.0.0.1:8042/dicom-web"
[pipelines.mr_brain]
use = "pipelines.mr_brain:BrainTumour"
when = { Modality = "MR", BodyPartExamined = "BRAIN" }
deliver_to = ["PACS"]
"""
    assert settings.parse(tomllib.loads(text), "example").pipelines["mr_brain"].deliver_to == ("PACS",)
