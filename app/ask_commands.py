"""`./run.sh ask "..."` and `./run.sh mcp`: the guidelines from a terminal and for MCP clients."""

from __future__ import annotations

import typer

from app.console import help_text, language


def ask(
    question: str,
    model: str = typer.Option("", help=help_text("model")),
    search_only: bool = typer.Option(False, "--search-only", help=help_text("search_only")),
    index: str = typer.Option("guidelines", help=help_text("ask_index")),
    top_k: int = typer.Option(5, min=1, max=20, help=help_text("ask_top_k")),
    explain: bool = typer.Option(False, "--explain", help=help_text("ask_explain")),
) -> None:
    """Search the guidelines and answer; prints what POST /api/ask returns."""
    from app.ask_answer import AnswerOut
    from core import ask as asking

    found = asking.ask(
        question,
        user_id=None,
        model=model or None,
        index=index,
        top_k=top_k,
        with_rewrite=not search_only,
        with_answer=not search_only,
        channel="cli",
    )
    print(AnswerOut.of(found, language(), explain=explain).model_dump_json(indent=1))


def mcp() -> None:
    """Serve the tools over standard input and output until the client closes them."""
    from app.mcp import build

    build().run("stdio")
