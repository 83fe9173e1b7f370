"""``wetread audit``: who received, used, sent, changed and deleted what, and whether the record of it is whole."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.table import Table

from node.audit import log_used
from node.cli.acts import json_option
from node.cli.options import out, person, settings_of, trail_of
from node.errors import NodeError


@click.group()
def audit() -> None:
    """Show the audit trail of this machine, or check that nobody has changed it.

    \b
    Example: wetread audit show --study 1.2.840.1
    Example: wetread audit verify
    """


@audit.command()
@click.option("--limit", default=50, show_default=True, help="How many records, the newest first.")
@click.option("--study", help="Only what concerns this Study Instance UID.")
@click.option("--event", help='Only these events, as "DICOM Instances Transferred".')
@click.option("--xml", "as_xml", is_flag=True, help="The messages themselves, one a line (PS3.15 A.5.1).")
@json_option
@click.pass_context
def show(context: click.Context, limit: int, study: str | None, event: str | None, as_xml: bool, as_json: bool) -> None:
    """Show who did what. That it was looked at is recorded, too.

    \b
    Example: wetread audit show --limit 20
    """
    trail = trail_of(settings_of(context))
    entries = trail.entries(limit, study_uid=study, event=event)
    trail.record(log_used(person(), study or event or ""))
    if as_xml:
        sys.stdout.writelines(f"{entry.message}\n" for entry in entries)
    elif as_json:
        json.dump([entry.as_json() for entry in entries], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        table = Table("No.", "Time (UTC)", "Event", "Who", "What", "Came to")
        for entry in entries:
            table.add_row(*_cells(entry.as_json()))
        out.print(table)


@audit.command()
@click.option("--against", metavar="N:DIGEST", help="What an earlier verification gave, or the collector has.")
@json_option
@click.pass_context
def verify(context: click.Context, against: str | None, as_json: bool) -> None:
    """Check every record; names the first that was changed, and is exit status 1 then.

    \b
    Example: wetread audit verify
    """
    found = trail_of(settings_of(context)).verify(against)
    if as_json:
        json.dump(vars(found), sys.stdout)
        sys.stdout.write("\n")
    if found.broken is not None:
        raise NodeError(f"the audit trail is not whole: record {found.broken}: {found.why}")
    if not as_json:
        told = f"{found.count} records, {found.first} to {found.last}, are as they were written; the last is "
        out.print(f"{told}{found.head}" if found.head else "there is no record yet", markup=False, soft_wrap=True)


def _cells(entry: dict[str, Any]) -> list[str]:
    who = " → ".join(" ".join(filter(None, (one["name"], one["way"], one["address"]))) for one in entry["who"])
    kinds = ", ".join(entry["types"])
    event = f"{entry['event']}: {kinds}" if kinds else entry["event"]
    count = f" ({entry['instances']} instances)" if entry["instances"] else ""
    came_to = "done" if not entry["outcome"] else entry["reason"] or "failed"
    time = str(entry["time"])[:19].replace("T", " ")
    return [str(entry["n"]), time, event, who, ", ".join(entry["what"]) + count, came_to]
