"""Peers that follow a script: a DICOM SCP as a program of its own, a web server, and a small certificate authority.

They answer what the test tells them to, right or wrong; what they were asked is kept for the test to look at.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.steady import steady

# ── A DICOM SCP ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Scp:
    port: int
    log: Path

    @property
    def events(self) -> list[str]:
        """What it saw: ``requested``, then ``store <SOP Instance UID>``, ``find``, ``commit`` and so on, in order."""
        return self.log.read_text().split("\n")[:-1]

    def report(self) -> None:
        """Tell it to report on what it was asked to keep."""
        self.log.with_suffix(".report").touch()


@contextlib.contextmanager
def scp(folder: Path, **script: Any) -> Iterator[Scp]:
    """A pynetdicom SCP in a process of its own that does what ``script`` says; see ``_serve``."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "scp.log"
    log.touch()
    command = [sys.executable, "-m", "tests.scripted", str(log), json.dumps(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        assert process.stdout is not None
        yield Scp(int(process.stdout.readline()), log)
    finally:
        process.kill()
        process.wait(60)


def _serve(log: Path, script: dict[str, Any]) -> None:
    """Serve until killed.

    ``classes``: {SOP class: [transfer syntaxes]}. ``status``: {SOP Instance UID: Status}, else 0. ``comment``. ``hang``
    and ``abort``: SOP Instance UIDs at which it falls silent, or aborts. ``reject``: [result, source, reason].
    ``held``: SOP Instance UIDs that C-FIND and commitment know. ``tls``: {certificate, key, ca, newest}.
    ``find_status``: what C-FIND is answered. ``counts``: how many instances it says that any study has, one
    number after the other, the last for ever. ``report_to``: {port, after, roles}: the report on storage
    commitment goes to that port, so many seconds later, on an association of its own, with role selection or without;
    ``after`` None: once ``Scp.report`` was called.
    """
    from pydicom import Dataset
    from pynetdicom import AE, build_role, evt
    from pynetdicom.sop_class import (
        StorageCommitmentPushModel,
        StorageCommitmentPushModelInstance,
        StudyRootQueryRetrieveInformationModelFind,
        Verification,
    )

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    def requested(event: Any) -> None:
        note("requested")
        if "reject" in script:
            event.assoc.acse.send_reject(*script["reject"])
            event.assoc.kill()

    def stored(event: Any) -> Any:
        uid = str(event.request.AffectedSOPInstanceUID)
        note(f"store {uid}")
        if uid in script.get("hang", []):
            time.sleep(600)
        if uid in script.get("abort", []):
            event.assoc.abort()
        answer = Dataset()
        answer.Status = script.get("status", {}).get(uid, 0)
        if "comment" in script:
            answer.ErrorComment = script["comment"]
        return answer

    def found(event: Any) -> Iterator[Any]:
        note("find")
        if "find_status" in script:
            yield script["find_status"], None
            return
        if event.identifier.QueryRetrieveLevel == "STUDY":
            match = Dataset()
            match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", event.identifier.StudyInstanceUID
            counts = script["counts"]
            match.NumberOfStudyRelatedInstances = counts.pop(0) if len(counts) > 1 else counts[0]
            yield 0xFF00, match
            return
        uids = event.identifier.SOPInstanceUID
        for uid in [uids] if isinstance(uids, str) else uids:
            if uid in script.get("held", []):
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", uid
                yield 0xFF00, match

    def committed(event: Any) -> Any:
        note("commit")
        request = event.action_information
        association = event.assoc
        if "report_to" not in script:
            threading.Timer(0.2, lambda: report(association, request)).start()
        else:
            threading.Thread(target=report_by_call, args=(request,), daemon=True).start()
        return 0x0000, None

    def report_by_call(request: Any) -> None:
        while script["report_to"]["after"] is None and not log.with_suffix(".report").exists():
            time.sleep(0.05)
        time.sleep(script["report_to"]["after"] or 0.0)
        call(request)

    def call(request: Any) -> None:
        caller = AE("SCRIPTED")
        caller.add_requested_context(StorageCommitmentPushModel, plain)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if script["report_to"]["roles"] else []
        association = caller.associate(
            "127.0.0.1", script["report_to"]["port"], ext_neg=roles, ae_title=script["report_to"].get("aet", "WETREAD")
        )
        if not association.is_established or not association.accepted_contexts:
            note("the report is not taken")
            return
        agreed = association.accepted_contexts[0]
        note(f"as SCP {agreed.as_scp}, as SCU {agreed.as_scu}")
        report(association, request)
        association.release()

    def report(association: Any, request: Any) -> None:
        answer = Dataset()
        answer.TransactionUID = request.TransactionUID
        held = [item for item in request.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in script["held"]]
        lost = [item for item in request.ReferencedSOPSequence if item not in held]
        for item in lost:
            item.FailureReason = 0x0112
        if held:
            answer.ReferencedSOPSequence = held
        if lost:
            answer.FailedSOPSequence = lost
        for context in association.accepted_contexts:
            context._as_scp = True  # so that pynetdicom sends the report where no role was agreed on, as some do
        status, _ = steady(association).send_n_event_report(
            answer, 2 if lost else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        note(f"reported {status.get('Status')}")

    ae = AE("SCRIPTED")
    plain = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    ae.add_supported_context(Verification, plain)
    for sop_class, syntaxes in script.get("classes", {}).items():
        ae.add_supported_context(sop_class, syntaxes)
    if script.get("can_find", True):
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind, plain)
    if script.get("can_commit", False):
        ae.add_supported_context(StorageCommitmentPushModel, plain, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_REQUESTED, requested),
        (evt.EVT_C_STORE, stored),
        (evt.EVT_C_FIND, found),
        (evt.EVT_N_ACTION, committed),
    ]
    tls = tls_server(**script["tls"]) if "tls" in script else None
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Event().wait()


# ── A web server ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What the server answers; ``pause`` seconds before the body and ``drip`` seconds between its bytes."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/dicom+json"
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    drip: float = 0.0
    reads_body: bool = True


@dataclass
class Web:
    port: int
    replies: list[Reply]
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"


@contextlib.contextmanager
def web(*replies: Reply, tls: dict[str, Any] | None = None) -> Iterator[Web]:
    """A web server that gives these replies in order, the last one for ever."""

    class Script(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with contextlib.suppress(OSError):
                self._reply()

        do_GET = do_POST  # noqa: N815 – http.server's own name

        def _reply(self) -> None:
            reply = running.replies.pop(0) if len(running.replies) > 1 else running.replies[0]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if reply.reads_body else b""
            running.requests.append(Request(self.command, self.path, dict(self.headers), body))
            time.sleep(reply.pause)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if not reply.reads_body:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            for piece in (reply.body,) if not reply.drip else (bytes([byte]) for byte in reply.body):
                self.wfile.write(piece)
                time.sleep(reply.drip)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls_server(**tls).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running = Web(server.server_address[1], list(replies) or [Reply()])
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


# ── Certificates ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder, by the openssl command."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def found(self) -> Authority:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._openssl(
            "req", "-x509", *self._new_key("ca"), "-subj", "/CN=test authority", "-days", "2", "-out", "ca.pem"
        )
        return self

    def issue(self, name: str, *, host: str = "127.0.0.1", days: int = 2, self_signed: bool = False) -> dict[str, str]:
        """{certificate, key} for a host; ``days`` below zero has expired."""
        kind = "IP" if host.replace(".", "").isdigit() else "DNS"
        (self.folder / "san.cnf").write_text(f"subjectAltName={kind}:{host}\n")
        self._openssl("req", "-new", *self._new_key(name), "-subj", f"/CN={host}", "-out", f"{name}.csr")
        signer = (
            ["-signkey", f"{name}.key"] if self_signed else ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        )
        self._openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            *signer,
            "-days",
            str(days),
            "-extfile",
            "san.cnf",
            "-out",
            f"{name}.pem",
        )
        return {"certificate": str(self.folder / f"{name}.pem"), "key": str(self.folder / f"{name}.key")}

    @staticmethod
    def _new_key(name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


def tls_server(*, certificate: str, key: str, ca: str | None = None, newest: str | None = None) -> ssl.SSLContext:
    """A server's context; with ``ca`` it asks for a client certificate, ``newest`` is the TLS version it stops at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = getattr(ssl.TLSVersion, newest)
    return context


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
