"""Who is told of a finding, so that the study is read sooner: a receiver of each kind, and what it is told.

    hl7       ORU^R01 and OMI^O23 over MLLP          ups      a UPS-RS workitem, created or its priority raised
    fhir      DiagnosticReport, Observation, …       webhook  signed JSON
    smtp      a mail without names

A notice is sent as evidence is: from the ledger, one answer per message, again until it is taken, dead when it is not.
"""

from __future__ import annotations

from node.notices.notice import Notice, notice_of
from node.notices.receiver import Receiver
from node.notices.telling import tell

__all__ = ["Notice", "Receiver", "notice_of", "tell"]
