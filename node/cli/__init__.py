"""The command ``wetread``: the only place where the parts are put together.

Exit status 0 done, 1 something failed (said in one line on standard error), 2 wrong usage or settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from node.cli import acts, adapting, folders, keeping, life, models, parts, pretraining, queue, users
from node.cli.audit import audit
from node.cli.demo import demo
from node.cli.doctor import doctor
from node.cli.pipelines import pipelines
from node.cli.triage import triage
from node.cli.twins import twins
from node.cli.viewer import viewer
from node.errors import BadSettings, NodeError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--settings", "file", type=click.Path(path_type=Path), help="The settings file; default: settings.toml.")
@click.version_option(package_name="wetread", prog_name="wetread")
@click.pass_context
def wetread(context: click.Context, file: Path | None) -> None:
    """Wet reads for a PACS: studies go in by DICOM, findings come out as SEG and SR.

    \b
    wetread demo                        the whole node with synthetic studies and a PACS
    wetread up                          the node of this machine
    wetread send FOLDER                 a folder of DICOM files to the node
    wetread read FOLDER --out OUT       no node, no network: read a folder
    """
    context.obj = file


for command in (
    *(parts.up, parts.listen, parts.work, parts.web),
    *(demo, doctor, viewer),
    *(folders.send, folders.read),
    *(queue.status, audit, acts.retry, acts.cancel, acts.quarantine, acts.priority, acts.resend),
    *(acts.hold, acts.release, acts.drain, acts.resume, keeping.purge, keeping.tend),
    *(users.users, users.tokens),
    *(
        life.train,
        life.evaluate,
        life.explain,
        pretraining.pretrain,
        twins,
        adapting.adapt,
        models.models,
        pipelines,
        triage,
    ),
):
    wetread.add_command(command)


def main() -> None:
    """Run ``wetread``; a mistake of the user's is one line, never a traceback."""
    try:
        code = wetread.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BadSettings as error:
        click.echo(f"wetread: {error}", err=True)
        code = 2
    except NodeError as error:
        click.echo(f"wetread: {error}", err=True)
        code = 1
    except OSError as error:
        click.echo(f"wetread: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
