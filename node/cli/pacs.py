"""The PACS of the demonstration: Orthanc where it is installed, else a small archive of our own.

Not for patients: it keeps what it is sent in the demo's folder and is asked only from this machine.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from node import delivery, enclosure
from node.errors import Unavailable

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PLUGIN_FOLDERS = (PLUGIN.parent, Path("/usr/local/share/orthanc/plugins"))


@dataclass(frozen=True)
class Pacs:
    """Where the demo's PACS is; ``http`` is None for the small archive, which has no web pages."""

    name: str
    dicom_port: int
    http: str | None
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def destination(self) -> delivery.Destination:
        return delivery.Destination(
            name="PACS",
            protocol="dimse",
            ae_title=self.name,
            host="127.0.0.1",
            port=self.dicom_port,
            calling_ae_title="WETREAD",
        )

    def objects(self, study_uid: str) -> list[dict[str, Any]] | None:
        """What it holds of a study by QIDO-RS, as DICOM JSON; None where it cannot be asked."""
        if self.http is None:
            return None
        answer = httpx.get(f"{self.http}/dicom-web/studies/{study_uid}/instances", timeout=20).raise_for_status()
        return list(answer.json()) if answer.content else []


@contextlib.contextmanager
def running(folder: Path, *, dicom_port: int, http_port: int, node_port: int) -> Iterator[Pacs]:
    """Start the PACS, wait until it answers a C-ECHO, and stop it in the end.

    Raises:
        Unavailable: If it does not start; the sentence names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orthanc = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/sbin")
    plugin = next((p / PLUGIN.name for p in PLUGIN_FOLDERS if (p / PLUGIN.name).exists()), None)
    log_path = folder / "pacs.log"
    with log_path.open("wb") as log:
        if orthanc and plugin:
            process = _orthanc(orthanc, plugin, folder, log, dicom_port, http_port, node_port)
            pacs = Pacs("ORTHANC", dicom_port, f"http://127.0.0.1:{http_port}", folder, process)
        else:
            process = _archive(folder, log, dicom_port)
            pacs = Pacs("ARCHIVE", dicom_port, None, folder, process)
        try:
            _wait(pacs, log_path)
            yield pacs
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _orthanc(program: str, plugin: Path, folder: Path, log: Any, dicom: int, http: int, node: int) -> Any:
    enclosed = enclosure.unshare() is not None
    settings = {
        "Name": "wetread demo",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": 4242 if enclosed else dicom,
        "HttpPort": 8042 if enclosed else http,
        # A relay on our loopback is the only way in when enclosed; otherwise only this machine may ask.
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckModalityHost": True,
        "DicomModalities": {
            "wetread": {"AET": "WETREAD", "Host": "127.0.0.1", "Port": node, "AllowStorageCommitment": True}
        },
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": f"127.0.0.1:{http}"},
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings, indent=1))
    command = [program, str(file)]
    if enclosed:
        return enclosure.start(command, {dicom: 4242, http: 8042}, log)
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _archive(folder: Path, log: Any, port: int) -> subprocess.Popen[bytes]:
    settings = folder / "archive.toml"
    settings.write_text(
        f'[node]\nae_title = "ARCHIVE"\ndicom_port = {port}\ndata = {json.dumps(str(folder / "archive"))}\n'
    )
    command = [sys.executable, "-m", "node", "--settings", str(settings), "listen"]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _wait(pacs: Pacs, log: Path) -> None:
    sentence: str | None = ""
    for _ in range(300):
        sentence = delivery.echo(pacs.destination)
        if sentence is None and _web_answers(pacs):
            return
        if pacs.process.poll() is not None:
            break
        time.sleep(0.1)
    raise Unavailable(f"the demo's PACS did not start ({sentence}); its log: {log}")


def _web_answers(pacs: Pacs) -> bool:
    if pacs.http is None:
        return True
    try:
        return httpx.get(f"{pacs.http}/system", timeout=5).is_success
    except httpx.HTTPError:
        return False
