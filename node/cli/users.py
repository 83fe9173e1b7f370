"""``wetread users`` and ``wetread tokens``: who is let in to the dashboard, and which programs to REST."""

from __future__ import annotations

import sys
import time
from datetime import datetime

import click
from rich.table import Table

from node.accounts import ACCOUNTS_FILE, Accounts, Role
from node.cli.options import out, settings_of

ROLES = click.Choice([role.word for role in Role])
DAY = 86400.0


def _accounts(context: click.Context) -> Accounts:
    return Accounts(settings_of(context).node.folder / ACCOUNTS_FILE)


@click.group()
def users() -> None:
    """Let people in to the dashboard: viewers look, operators act on the queue, administrators on the node.

    \b
    Example: wetread users add anna --role operator
    """


@users.command("list")
@click.pass_context
def list_users(context: click.Context) -> None:
    """Show who is let in, and as what.

    \b
    Example: wetread users list
    """
    table = Table("User", "Role")
    for name, role in _accounts(context).users().items():
        table.add_row(name, role.word)
    out.print(table)


@users.command("add")
@click.argument("name")
@click.option("--role", type=ROLES, default="viewer", show_default=True)
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, up to the end of the line."
)
@click.pass_context
def add_user(context: click.Context, name: str, role: str, password_stdin: bool) -> None:
    """Add a user, or give one another role and password.

    \b
    Example: wetread users add anna --role operator
    """
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    _accounts(context).set_user(name, Role.named(role), password)
    out.print(f"{name} is let in as {role}")


@users.command("remove")
@click.argument("name")
@click.pass_context
def remove_user(context: click.Context, name: str) -> None:
    """Let a user in no more; what is open of them ends at once.

    \b
    Example: wetread users remove anna
    """
    _accounts(context).remove_user(name)
    out.print(f"{name} is let in no more")


@click.group()
def tokens() -> None:
    """Let programs in to REST, by a token that they show.

    \b
    Example: wetread tokens add reports --role viewer --days 90
    """


@tokens.command("list")
@click.pass_context
def list_tokens(context: click.Context) -> None:
    """Show which tokens there are, and until when; never the tokens themselves.

    \b
    Example: wetread tokens list
    """
    table = Table("Token", "For", "Role", "Until")
    for token in _accounts(context).tokens():
        until = datetime.fromtimestamp(token.expires)
        table.add_row(token.id, token.name, token.role.word, f"{until:%Y-%m-%d}")
    out.print(table)


@tokens.command("add")
@click.argument("name")
@click.option("--role", type=ROLES, default="viewer", show_default=True)
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="After which it expires.")
@click.pass_context
def add_token(context: click.Context, name: str, role: str, days: int) -> None:
    """Make a token; it is shown now and never again.

    \b
    Example: wetread tokens add reports --role viewer --days 90
    """
    out.print(
        _accounts(context).add_token(name, Role.named(role), time.time() + days * DAY), markup=False, soft_wrap=True
    )


@tokens.command("remove")
@click.argument("token")
@click.pass_context
def remove_token(context: click.Context, token: str) -> None:
    """Accept a token no more: its number, as the list shows it.

    \b
    Example: wetread tokens remove 3f9c01aa
    """
    _accounts(context).remove_token(token)
    out.print(f"token {token} is accepted no more")
