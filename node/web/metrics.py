"""What Prometheus is told: one table of names, and the values of now. Counts alone; no study and no patient.

The dashboard and the alert rules in ``deploy/`` use these names; a test keeps the three equal.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping

from node.web.overview import run_check
from node.web.site import Site
from node.web.watch import Watch

METRICS = {
    "wetread_studies": "Studies in the ledger by state.",
    "wetread_jobs": "Jobs in the ledger by state.",
    "wetread_deliveries": "Deliveries in the ledger by state.",
    "wetread_oldest_waiting_seconds": "How long the job has waited that waits longest; 0: none waits.",
    "wetread_disk_free_bytes": "Free on the disk of the data folder.",
    "wetread_disk_reserve_bytes": "Kept free on it: below, nothing more is received.",
    "wetread_check_ok": "Whether a check of /health is well: 1 or 0.",
    "wetread_peer_up": "Whether a destination answered when it was last asked: 1 or 0.",
}


def told(site: Site, watch: Watch) -> str:
    """All of it, in the text format (prometheus.io/docs/instrumenting/exposition_formats)."""
    lines: list[str] = []
    for name, values in _values(site, watch).items():
        lines += [f"# HELP {name} {METRICS[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{labels} {value:g}" for labels, value in values]
    return "\n".join([*lines, ""])


def _values(site: Site, watch: Watch) -> dict[str, list[tuple[str, float]]]:
    counts = site.ledger.counts()
    sent = Counter[str]()
    for states in counts.deliveries.values():
        sent.update(states)
    waits = site.ledger.now() - counts.oldest_waiting if counts.oldest_waiting is not None else 0.0
    checks = {name: float(not run_check(check)) for name, check in site.checks.items()}
    peers = {place.name: float(not heard.fault) for place in site.places if (heard := watch.heard(place.name))}
    return {
        "wetread_studies": list(_labelled("state", counts.studies)),
        "wetread_jobs": list(_labelled("state", counts.jobs)),
        "wetread_deliveries": list(_labelled("state", sent)),
        "wetread_oldest_waiting_seconds": [("", waits)],
        "wetread_disk_free_bytes": [("", shutil.disk_usage(site.folder).free)],
        "wetread_disk_reserve_bytes": [("", site.reserve_bytes)],
        "wetread_check_ok": list(_labelled("check", checks)),
        "wetread_peer_up": list(_labelled("destination", peers)),
    }


def _labelled(label: str, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, value in sorted(values.items()):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        yield f'{{{label}="{escaped}"}}', value
