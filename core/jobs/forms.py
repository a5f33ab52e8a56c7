"""A kind's config as a form: its fields with default and help, and what is wrong with a value as a sentence for people.

Pure. The Jobs page draws its start form from `fields()`; `validated()` is what `core.jobs.api.enqueue` accepts, so a form, the
command line and a schedule refuse the same things in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from core.errors import UserError
from core.jobs.configs import JobConfig
from core.jobs.kinds import job_kind

#: fields that hold the name of something in the database -> what kind of thing
NAMED = {"model": "versions", "models": "versions", "base_model": "versions", "sft_model": "versions", "dataset": "datasets"}

#: pydantic's error types that have a sentence of their own in assets/i18n/jobs.toml (`bad_<type>`)
_SENTENCES = {
    "missing": "bad_missing",
    "string_too_short": "bad_missing",
    "too_short": "bad_missing",
    "extra_forbidden": "bad_unknown_field",
    "greater_than": "bad_too_small",
    "greater_than_equal": "bad_below_minimum",
    "less_than": "bad_too_large",
    "less_than_equal": "bad_above_maximum",
    "int_parsing": "bad_not_whole",
    "int_type": "bad_not_whole",
    "int_from_float": "bad_not_whole",
    "float_parsing": "bad_not_number",
    "float_type": "bad_not_number",
    "literal_error": "bad_choice",
    "not_a_divisor": "bad_not_a_divisor",
    "needs_engine": "bad_needs_engine",
    "beta_must_hold": "bad_beta",
}


@dataclass(frozen=True, slots=True)
class FormField:
    """One line of a form. `type` is text, integer, number, switch, choice, names or mapping; `source` is versions,
    datasets, expansion_versions or expansion_sets: what it may name.

    `names` with `choices` takes only those."""

    name: str
    type: str
    default: Any
    en: str
    zh: str
    is_required: bool
    is_advanced: bool
    is_optional: bool = False
    choices: tuple[str, ...] = ()
    source: str = ""
    minimum: float | None = None
    maximum: float | None = None


def fields(kind: str) -> list[FormField]:
    """The fields of a kind's config, in order. Raises NotFound("unknown_job_kind")."""
    found = []
    for name, info in job_kind(kind).config.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        type_name, choices, is_optional = _type(info.annotation)
        low = next((v for m in info.metadata if (v := getattr(m, "ge", getattr(m, "gt", None))) is not None), None)
        high = next((v for m in info.metadata if (v := getattr(m, "le", getattr(m, "lt", None))) is not None), None)
        found.append(
            FormField(
                name=name,
                type=type_name,
                default=None if info.default is PydanticUndefined else info.default,
                en=info.description or "",
                zh=str(extra.get("zh", "")),
                is_required=info.is_required(),
                is_advanced=bool(extra.get("advanced")),
                is_optional=is_optional,
                choices=choices,
                source=str(extra.get("source") or NAMED.get(name, "")),
                minimum=low,
                maximum=high,
            )
        )
    return found


def _type(annotation: Any) -> tuple[str, tuple[str, ...], bool]:
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is Literal:
        return "choice", tuple(map(str, arguments)), False
    if type(None) in get_args(annotation):
        return (*_type(arguments[0])[:2], True)
    if get_origin(annotation) is list:
        return "names", tuple(map(str, get_args(arguments[0]))), False
    if get_origin(annotation) is dict:
        return "mapping", (), False
    return {bool: "switch", int: "integer", float: "number"}.get(annotation, "text"), (), False


def validated(kind: str, values: dict[str, Any]) -> JobConfig:
    """The config of `kind` made from `values`. Raises UserError for the first thing that is wrong (see `problems`)."""
    try:
        return job_kind(kind).config.model_validate(values)
    except ValidationError as error:
        raise _sentence(error.errors()[0]) from error


def problems(kind: str, values: dict[str, Any]) -> dict[str, UserError]:
    """What is wrong, by field name; empty when `enqueue` would accept `values`."""
    try:
        job_kind(kind).config.model_validate(values)
    except ValidationError as error:
        return {str(detail["loc"][0]): _sentence(detail) for detail in reversed(error.errors())}
    return {}


def _sentence(detail: ErrorDetails) -> UserError:
    context = detail.get("ctx", {})
    limit = next((context[k] for k in ("ge", "gt", "le", "lt", "expected") if k in context), "")
    code = _SENTENCES.get(detail["type"], "bad_value")
    return UserError(f"jobs.{code}", field=".".join(map(str, detail["loc"])), limit=limit, reason=detail["msg"])
