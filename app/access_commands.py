"""`./run.sh token ...` and `user email`: tokens for programs; the e-mail address by which an outside provider finds an account.

The person who runs a command owns the data folder, so nothing is asked; the audit chain says that it was the command line.
"""

from __future__ import annotations

import typer

from app.console import help_text, say, word
from core import accounts, identities, tokens

SCOPES = typer.Option(..., "--scope")

token_commands = typer.Typer(help=help_text("token"), no_args_is_help=True)


def register(cli: typer.Typer, user_commands: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(token_commands, name="token")
    user_commands.command("email", help=help_text("user_email"))(user_email)


@token_commands.command("make", help=help_text("token_make"))
def make(username: str, name: str, scope: list[str] = SCOPES, days: int = typer.Option(90)) -> None:
    """Print a new token, once."""
    number, token = tokens.create(accounts.find_user(username), name, scope, days, by=None)
    say(word("token_made", id=number, name=username, token=token))


@token_commands.command("list", help=help_text("token_list"))
def show() -> None:
    """One line per token, newest first."""
    for row in tokens.everybodys():
        used = f"{row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "-"
        state = f"{row.expires_at:%Y-%m-%d}" if row.is_open else word("token_over")
        say(f"{row.id:>5} {row.username:<16} {row.hint}… {state:<11} {used:<17} {','.join(row.scopes)} {row.name}")


@token_commands.command("revoke", help=help_text("token_revoke"))
def revoke(token_id: int) -> None:
    """End a token at once."""
    tokens.revoke(token_id, by=None)
    say(word("token_revoked", id=token_id))


def user_email(username: str, email: str = typer.Argument("")) -> None:
    """Note an address; without one, forget it."""
    identities.set_email(accounts.find_user(username), email, by=None)
