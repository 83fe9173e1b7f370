"""What of deploy/ can be started without a container engine: Orthanc, nginx before it, Redis, the hardened node.

Each runs with the file that ships; only paths and ports are this test's own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from pynetdicom import AE
from pynetdicom.sop_class import LabelMapSegmentationStorage

from pipelines.synthetic import brain_mr
from tests import peers
from tests.steady import steady
from tests.waiting import PATIENCE

DEPLOY = peers.ROOT / "deploy"
USER = ("wetread", "correct horse")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    shipped = json.loads((DEPLOY / "orthanc.json").read_text())
    for own in ("StorageDirectory", "IndexDirectory", "Plugins", "DicomPort", "HttpPort", "DicomAet"):
        shipped.pop(own)
    # peers.py asks by C-ECHO whether it is up; WETREAD stays as shipped but for its address
    with peers.orthanc(tmp_path_factory.mktemp("pacs"), user=USER, **shipped) as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("image")
    return dcmread(brain_mr(folder, seed=1, lesion=None, sequences=("FLAIR",), slices=3, matrix=32).files[0])


def store(pacs: peers.Orthanc, aet: str, image: Dataset) -> int:
    """The status of C-STORE, or -1 where Orthanc accepts no association or no image."""
    ae = AE(aet)
    ae.acse_timeout = ae.dimse_timeout = PATIENCE
    ae.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = steady(ae.associate(pacs.host, pacs.dicom_port, ae_title="ORTHANC"))
    if not association.is_established:
        return -1
    try:
        return int(association.send_c_store(image).get("Status", -1))
    finally:
        association.release()


def accepts(pacs: peers.Orthanc, aet: str, sop_class: str) -> bool:
    ae = AE(aet)
    ae.acse_timeout = PATIENCE
    ae.add_requested_context(sop_class)
    association = steady(ae.associate(pacs.host, pacs.dicom_port, ae_title="ORTHANC"))
    if not association.is_established:
        return False
    association.release()
    return True


def status_of(url: str, *, user: tuple[str, str] | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(user).encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_orthanc_takes_every_kind_of_evidence_from_the_node(pacs: peers.Orthanc, image: Dataset) -> None:
    assert store(pacs, "WETREAD", image) == 0
    for sop_class in (SegmentationStorage, LabelMapSegmentationStorage, Comprehensive3DSRStorage):
        assert accepts(pacs, "WETREAD", sop_class)


def test_orthanc_takes_nothing_from_a_stranger(pacs: peers.Orthanc, image: Dataset) -> None:
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    assert store(pacs, "STRANGER", image) != 0
    assert "1.2.3.4.5" not in pacs.instances


def test_orthanc_asks_for_a_password(pacs: peers.Orthanc) -> None:
    assert status_of(f"{pacs.dicom_web}/studies") == 401
    assert status_of(f"{pacs.dicom_web}/studies", user=("wetread", "wrong")) == 401
    assert status_of(f"{pacs.dicom_web}/studies", user=USER) == 200


@pytest.fixture(scope="module")
def viewer(pacs: peers.Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx with our configuration before Orthanc."""
    program = peers.where("nginx")
    if program is None:
        pytest.skip("not installed here: nginx")
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "index.html").write_text("<title>viewer</title>")
    shutil.copy(DEPLOY / "ohif" / "app-config.js", folder)
    (folder / "mime.types").write_text("types { text/html html; application/javascript js; }")
    port = peers.free_port()
    text = (DEPLOY / "ohif" / "nginx.conf").read_text()
    for shipped, here in (
        ("/tmp/", f"{folder}/"),  # first: the folder itself may lie in it
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("http://orthanc:8042", pacs.url),
        ("/usr/share/nginx/html", str(folder)),
        ("/etc/nginx/mime.types", str(folder / "mime.types")),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    user = " user root;" if os.getuid() == 0 else ""  # else it becomes nobody, who may not read this test's folder
    process = subprocess.Popen([*command, "-g", f"daemon off;{user}"], stderr=subprocess.DEVNULL)
    try:
        peers.wait_until(lambda: opens(port), "nginx listening")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def opens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10):
        return True
    return False


def test_the_viewer_is_cross_origin_isolated(viewer: str) -> None:
    with urllib.request.urlopen(f"{viewer}/viewer?StudyInstanceUIDs=1.2.3", timeout=PATIENCE) as answer:
        assert b"viewer" in answer.read()
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_the_viewer_passes_the_password_on_and_knows_none(viewer: str) -> None:
    assert status_of(f"{viewer}/dicom-web/studies") == 401
    assert status_of(f"{viewer}/dicom-web/studies", user=USER) == 200


def test_the_viewer_reads_and_does_not_write(viewer: str) -> None:
    assert status_of(f"{viewer}/dicom-web/studies", user=USER, method="POST") == 403
    assert status_of(f"{viewer}/instances", user=USER) == 200  # index.html: Orthanc's own REST API is not behind it


@pytest.mark.skipif(not shutil.which("node"), reason="not installed here: node (Node.js)")
def test_ohif_finds_dicomweb_at_the_viewers_own_origin() -> None:
    script = "global.window={};require(process.argv[1]);process.stdout.write(JSON.stringify(window.config))"
    config = json.loads(
        subprocess.run(
            ["node", "-e", script, DEPLOY / "ohif" / "app-config.js"], check=True, capture_output=True, text=True
        ).stdout
    )
    (source,) = config["dataSources"]
    assert source["sourceName"] == config["defaultDataSourceName"]
    assert {source["configuration"][key] for key in ("qidoRoot", "wadoRoot", "wadoUriRoot")} == {"/dicom-web"}
    assert source["configuration"]["dicomUploadEnabled"] is False


@pytest.mark.skipif(not shutil.which("redis-server"), reason="not installed here: redis-server")
def test_redis_with_the_made_settings_asks_for_the_password_and_keeps_what_it_holds(tmp_path: Path) -> None:
    import redis

    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    subprocess.run([folder / "make-secrets.sh"], check=True, capture_output=True)
    password = (folder / "secrets" / "redis_password").read_text()
    port = peers.free_port()
    text = (
        (folder / "secrets" / "redis.conf").read_text().replace("/data", str(tmp_path)).replace("0.0.0.0", "127.0.0.1")
    )
    (tmp_path / "redis.conf").write_text(f"{text}port {port}\n")
    process = subprocess.Popen(["redis-server", tmp_path / "redis.conf"], stdout=subprocess.DEVNULL)
    try:
        peers.wait_until(lambda: opens(port), "redis-server listening")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        client = redis.Redis(port=port, password=password)
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    finally:
        process.terminate()
        process.wait(PATIENCE)


# prctl(2): PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: the kernel's own form of MemoryDenyWriteExecute, since Linux 6.3
MDWE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("part", ["listen", "web"])
def test_a_part_starts_where_memory_cannot_be_made_executable(part: str, tmp_path: Path) -> None:
    dicom, web = peers.free_port(), peers.free_port()
    file = tmp_path / "settings.toml"
    file.write_text(f'[node]\ndata = "{tmp_path}/d"\ndicom_port = {dicom}\nweb_port = {web}\n')
    command = [sys.executable, "-c", MDWE, sys.executable, "-m", "node", "--settings", str(file), part]
    process = subprocess.Popen(
        command, cwd=peers.ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )

    def is_up() -> bool:
        if process.poll() == 99:
            pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        return opens(dicom if part == "listen" else web)

    try:
        peers.wait_until(is_up, f"wetread {part} up")
    finally:
        process.terminate()
        process.wait(PATIENCE)
