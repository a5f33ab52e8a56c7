"""Adjudication rows as other tools read them: Label Studio tasks with annotations, Argilla records. Pure.

Label Studio: the "basic JSON" task form (labelstud.io/guide/task_format): data, annotations[].result[] with from_name and to_name
of the labelling config that `LABEL_STUDIO_CONFIG` holds. Argilla 2: flat records as `Dataset.records.log` takes them, one
column per field and question of `argilla_settings`. Neither tool is needed to write them.
"""

from __future__ import annotations

from typing import Any

from core.desk.forms import CRITERIA, CRITERION_VALUES
from core.records import Confidence, Verdict

VERDICTS = tuple(v.value for v in Verdict)


def _choices(name: str, values: tuple[str, ...], to: str = "answer") -> str:
    inner = "".join(f'<Choice value="{value}"/>' for value in values)
    return f'<Choices name="{name}" toName="{to}" choice="single">{inner}</Choices>'


LABEL_STUDIO_CONFIG = (
    '<View><Text name="question" value="$question"/><Text name="thinking" value="$thinking"/><Text name="answer" value="$answer"/>'
    + _choices("verdict", VERDICTS)
    + "".join(_choices(f"criterion_{name}", CRITERION_VALUES) for name in CRITERIA)
    + _choices("confidence", tuple(c.value for c in Confidence))
    + '<TextArea name="note" toName="answer"/><TextArea name="rewritten_answer" toName="answer"/></View>'
)

_SHOWN = ("question", "thinking", "answer")
_META = ("case_id", "case_kind", "sample_id", "completion_id", "model_version", "language", "category", "risk", "split")


def label_studio(row: dict[str, Any]) -> dict[str, Any]:
    """One task. `lead_time` is the reviewer's active time in seconds, as that tool means it."""
    result: list[dict[str, Any]] = []
    for name in ("verdict", *(f"criterion_{c}" for c in CRITERIA), "confidence"):
        if row[name]:
            result.append({"from_name": name, "to_name": "answer", "type": "choices", "value": {"choices": [row[name]]}})
    for name in ("note", "rewritten_answer"):
        if row[name]:
            result.append({"from_name": name, "to_name": "answer", "type": "textarea", "value": {"text": [row[name]]}})
    return {
        "id": row["case_id"],
        "data": {name: row[name] for name in _SHOWN},
        "meta": {name: row[name] for name in _META} | {"reviewer": row["reviewer"]},
        "annotations": [{"id": row["adjudication_id"], "result": result, "lead_time": row["active_s"], "created_at": row["signed_at"]}],
    }


def argilla(row: dict[str, Any]) -> dict[str, Any]:
    """One flat record: fields, `<question>.response` columns, metadata."""
    answers = {"verdict": row["verdict"], "confidence": row["confidence"], "note": row["note"], "rewritten_answer": row["rewritten_answer"]}
    answers |= {f"criterion_{name}": row[f"criterion_{name}"] for name in CRITERIA}
    return (
        {"id": str(row["case_id"])}
        | {name: row[name] for name in _SHOWN}
        | {f"{name}.response": value for name, value in answers.items() if value}
        | {"reviewer": row["reviewer"]}
        | {name: row[name] for name in _META}
    )


def argilla_settings() -> dict[str, Any]:
    """Fields, questions and metadata under which the records of `argilla` are read."""
    labels: dict[str, tuple[str, ...]] = {"verdict": VERDICTS, "confidence": tuple(c.value for c in Confidence)}
    labels |= {f"criterion_{name}": CRITERION_VALUES for name in CRITERIA}
    return {
        "guidelines": "Adjudicated answers of a medical language model, exported from Consilium.",
        "fields": [{"name": name, "type": "text", "required": name != "thinking"} for name in _SHOWN],
        "questions": [{"name": n, "type": "label_selection", "labels": list(v), "required": n == "verdict"} for n, v in labels.items()]
        + [{"name": name, "type": "text", "required": False} for name in ("note", "rewritten_answer")],
        "metadata": [{"name": name, "type": "terms"} for name in (*_META, "reviewer")],
    }


SHAPES = {"label_studio": label_studio, "argilla": argilla}
