"""Rows as training text: chat messages, or one string by a tokenizer's own chat template. Called by the CLI and training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.expansion import schema
from core.expansion.schema import Row


def messages(row: Row, instruction: str = schema.DEFAULT) -> list[dict[str, str]]:
    """The prompt that Ask sends, and the lines as the answer."""
    return [*schema.prompt_messages(row.query, instruction), {"role": "assistant", "content": row.output}]


def formatted(rows: Iterable[Row], tokenizer: Path | None = None, instruction: str = schema.DEFAULT) -> Iterator[dict[str, Any]]:
    """{"query", "messages"} per row, with "text" by the chat template of `tokenizer` (a folder) when it is given.

    An empty thinking block that a template writes before the answer is taken off. Raises UserError("expansion.no_template").
    """
    template = None
    if tokenizer is not None:
        if not (tokenizer / "tokenizer_config.json").is_file():
            raise UserError("expansion.no_template", path=tokenizer)
        from transformers import AutoTokenizer

        try:
            template = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError("expansion.no_template", path=tokenizer) from error
        if not getattr(template, "chat_template", None):
            raise UserError("expansion.no_template", path=tokenizer)
    for row in rows:
        said = messages(row, instruction)
        made: dict[str, Any] = {"query": row.query, "messages": said}
        if template is not None:
            text = str(template.apply_chat_template(said, tokenize=False))
            made["text"] = schema.THINK.sub(lambda found: "" if not found[1].strip() else found[0], text).replace("\n\n\n", "\n")
        yield made
