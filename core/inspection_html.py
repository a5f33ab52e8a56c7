"""The inspection pack as one HTML page: no script, nothing loaded from anywhere, fit for printing. Every text is escaped. Pure.

Called by core.inspection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from core.i18n import translate

STYLE = """
body { font: 15px/1.5 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; color: #1c2326; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; border-bottom: 1px solid #c9d3d6; margin-top: 2rem; }
.ai { border: 2px solid #8a5a00; background: #fff7e6; padding: .6rem .9rem; font-weight: 600; }
.text { white-space: pre-wrap; background: #f4f7f8; padding: .7rem .9rem; border-radius: 6px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
  border-bottom: 1px solid #e3eaec; overflow-wrap: anywhere; } th { color: #56636a; font-weight: 500; }
code { font-size: .85em; overflow-wrap: anywhere; } .bad { color: #a3231f; font-weight: 600; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def render(life: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], language: str) -> str:
    """The page. `life` is core.inspection.collect with `audit_chain`; `entries` are audit entries."""

    def word(key: str, **params: Any) -> str:
        return escape(translate(f"trust.{key}", language, **params))

    people = {int(number): one["name"] for number, one in life["people"].items()}
    label, chain = word("pack_ai_label"), life["audit_chain"]
    verdict = word("chain_holds") if chain["holds"] else f'<span class="bad">{word("chain_broken")}</span>'
    parts = [
        f"<h1>{word('pack_title', id=life['case_id'])}</h1>",
        f"<p>{escape(life['product'])} · {escape(life['made_at'])} UTC</p>",
        f'<p class="ai" role="note">{label}</p>',
        f"<h2>{word('pack_question')}</h2>",
        *(
            f'<p class="text"><b>{escape(str(m.get("role")))}</b>\n{escape(str(m.get("content")))}</p>'
            for m in life["question"]["messages"]
        ),
        f"<h2>{word('pack_answer')}</h2>",
        f'<p class="ai" role="note" data-ai-generated="true">{label}</p>',
        f'<details><summary>{word("pack_thinking")}</summary><p class="text">{escape(life["answer"]["thinking"])}</p></details>',
        f'<p class="text">{escape(life["answer"]["answer"])}</p>',
        f"<h2>{word('pack_model')}</h2>",
        _table(
            life["model_versions"], ("version", "kind", "job_id", "job_kind", "dataset", "reward_config", "teacher", "content_hash"), word
        ),
        f"<h2>{word('pack_scores')}</h2>",
        _table(life["rule_scores"], ("rule_id", "lexicon_version", "score", "unscored_reason", "created_at"), word),
        _table(life["teacher_judgements"], ("teacher", "rubric_version", "teacher_score", "safety_flag", "critique", "created_at"), word),
        _table(life["rewards"], ("config_version", "value", "unscored_reason", "created_at"), word),
        f"<h2>{word('pack_decisions')}</h2>",
        *(_decision(one, people, word) for one in life["decisions"]),
        _table(life["retractions"], ("adjudication_id", "signed_name", "signed_meaning", "reason", "created_at"), word),
        f"<h2>{word('pack_follow')}</h2>",
        _table(life["follow_ups"], ("kind", "status", "note", "answer", "created_at"), word),
        _table(life["safety_cases"], ("origin", "note", "closed_reason", "created_at", "closed_at"), word),
        f"<h2>{word('pack_drafts')}</h2>",
        _table(life["drafts"], ("user_id", "updated_at", "payload"), word),
        f"<h2>{word('pack_made')}</h2>",
        _table(
            [{"decision": number, **one} for number, made in life["made_of_decisions"].items() for one in made],
            ("decision", "kind", "name", "job_id", "through", "via"),
            word,
        ),
        f"<h2>{word('pack_guidelines')}</h2>",
        _table(life["guidelines"], ("version", "created_at", "note"), word),
        f"<h2>{word('pack_audit')}</h2>",
        f"<p>{word('pack_chain', num=chain['entries'], hash=chain['last_hash'])} {verdict}</p>",
        _table(entries, ("id", "created_at", "action", "object_type", "object_id", "actor_id", "reason", "entry_hash"), word),
        f"<h2>{word('pack_verify')}</h2>",
        f'<p class="text">{word("pack_readme", id=life["case_id"])}</p>',
    ]
    lang = "zh-CN" if language == "zh" else "en"
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="ai-generated" content="true">'
        f'<meta name="ai-label" content="{label}"><title>{word("pack_title", id=life["case_id"])}</title><style>{STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="{lang}"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _decision(one: Mapping[str, Any], people: Mapping[int, str], word: Any) -> str:
    """One step: who, when, what, and the signature with its meaning where there is one."""
    shown = ("stage", "role", "verdict", "cannot_judge_reason", "criteria", "marks", "confidence", "who_was_right", "because")
    rest = ("note", "revision_reason", "rewritten_answer", "evidence", "guideline_version", "supersedes_id", "row_sha256")
    rows = {key: one[key] for key in (*shown, *rest) if one.get(key) not in (None, "", [], {})}
    if one.get("signed_name"):
        rows |= {"signature": f"{one['signed_name']} · {one['signed_at']} · {one['signed_meaning']}"}
    cells = "".join(f"<tr><th>{word(f'field_{key}')}</th><td>{_value(value)}</td></tr>" for key, value in rows.items())
    who = escape(people.get(one["user_id"], str(one["user_id"])))
    return f"<h3>{one['id']} · {who} · {escape(str(one['created_at']))}</h3><table>{cells}</table>"


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], word: Any) -> str:
    found = list(rows)
    if not found:
        return f"<p>{word('pack_none')}</p>"
    head = "".join(f"<th>{word(f'field_{name}')}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_value(row.get(name))}</td>" for name in columns) + "</tr>" for row in found)
    return f"<table><tr>{head}</tr>{body}</table>"


def _value(value: Any) -> str:
    if value is None or value == "":
        return "–"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
