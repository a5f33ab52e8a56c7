"""The doors to endpoints that are not ours: nothing that identifies a person passes unless a person let it.

Three doors, one rule. The teacher's (`TeacherDoor`) leaves the sample unscored with the reason "identifiers" and puts it into
quarantine; a chat's (`outside_messages`) refuses with a sentence; an embedding's (`outside_texts`) masks, for a vector needs no
names. With the policy "surrogate" all three send surrogates, with "off" everything as it is. An endpoint on this machine counts as
outside too: what stands behind it is not known here. Called by `core.teacher`, `core.model_client` and `core.retrieval.endpoints`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from core.deidentify import Finding, find_all, fingerprint, mask
from core.deidentify.detect import half_width
from core.deidentify.structured import structured
from core.errors import UserError
from core.importing.screening import kinds_of, preview_of
from core.quarantine import hold_sample, policy, surrogates_for
from core.records import Completion, Message, Prompt


class TeacherDoor:
    """See the module. `admit` is called on the teacher's own thread, before anything is rendered or logged."""

    def admit(self, prompt: Prompt, completion: Completion) -> tuple[Prompt, Completion] | None:
        """The pair as it may be sent, or None when it may not. Raises UserError when the database fails."""
        rule = policy()
        if rule.action == "off":
            return prompt, completion
        said = teacher_texts(prompt, completion)
        found = uncleared(said, prompt.cleared)
        kinds = kinds_of(found)
        if not kinds:
            return prompt, completion
        if rule.action == "surrogate":
            surrogates = surrogates_for("teacher", str(prompt.sample_id or hashlib.sha256(said[0].encode()).hexdigest()))
            return with_teacher_texts(prompt, completion, [surrogates.apply(text, hits) for text, hits in zip(said, found, strict=True)])
        if prompt.sample_id is not None:
            marks = [fingerprint(h.kind, text[h.start : h.end]) for text, hits in zip(said, found, strict=True) for h in hits]
            hold_sample(prompt.sample_id, kinds, preview_of(said, found), marks)
        return None


class StrictDoor:
    """The door of a teacher that no database stands behind: what identifies does not pass, and nothing is noted."""

    def admit(self, prompt: Prompt, completion: Completion) -> tuple[Prompt, Completion] | None:
        """The pair itself, or None."""
        has_hit = any(uncleared(teacher_texts(prompt, completion), prompt.cleared))
        return None if has_hit else (prompt, completion)


def teacher_texts(prompt: Prompt, completion: Completion) -> list[str]:
    """Every text of a pair that a teacher is sent (`core.teacher.template.judged`)."""
    return [*(m.content for m in prompt.messages), prompt.reference or "", *prompt.key_points, completion.thinking, completion.answer]


def with_teacher_texts(prompt: Prompt, completion: Completion, new: Sequence[str]) -> tuple[Prompt, Completion]:
    """The pair with other texts, in the order of `teacher_texts`."""
    left = iter(new)
    messages = tuple(Message(m.role, next(left)) for m in prompt.messages)
    reference, points = next(left) or None, tuple(next(left) for _ in prompt.key_points)
    thinking, answer = next(left), next(left)
    text = completion.text if (thinking, answer) == (completion.thinking, completion.answer) else f"{thinking}\n{answer}"
    return replace(prompt, messages=messages, reference=reference, key_points=points), replace(
        completion, text=text, thinking=thinking, answer=answer
    )


def uncleared(said: Sequence[str], cleared: frozenset[str]) -> list[list[Finding]]:
    """What was found and has not been let through."""
    found = find_all(said)
    if not cleared:
        return found
    return [[h for h in hits if fingerprint(h.kind, text[h.start : h.end]) not in cleared] for text, hits in zip(said, found, strict=True)]


def outside_messages(messages: Sequence[Message]) -> list[Message]:
    """A chat as it may leave. Raises UserError("privacy.leaving") when it holds what identifies a person and the policy is quarantine."""
    rule = policy()
    if rule.action == "off":
        return list(messages)
    said = [m.content for m in messages]
    found = find_all(said)
    # a date alone names nobody, and every passage of a guideline carries its own; beside a name or a number it counts
    if all(h.kind == "date" for hits in found for h in hits):
        return list(messages)
    if rule.action == "quarantine":
        raise UserError("privacy.leaving", num=sum(map(len, found)))
    surrogates = surrogates_for("chat", hashlib.sha256(said[0].encode()).hexdigest())
    return [Message(m.role, surrogates.apply(text, hits)) for m, text, hits in zip(messages, said, found, strict=True)]


#: a number of somebody's; names, addresses, dates, telephones and e-mails also stand in a guideline, as those of its publisher
OF_A_PATIENT = frozenset({"id_card", "nhs_number", "ssn", "bank_card", "record_number", "mobile", "online_id", "plate"})


def kinds_in_document(text: str) -> tuple[str, ...]:
    """Kinds of a patient's numbers in a document that is to be indexed, sorted; nothing when the policy is off."""
    if policy().action == "off":
        return ()
    return tuple(sorted({hit.kind for hit in structured(half_width(text)[0])} & OF_A_PATIENT))


def screen_texts(groups: Sequence[Sequence[str]], scope: str) -> tuple[list[list[str]], list[int]]:
    """Rows of texts as they may be stored, and the places of those that may not: with the policy "surrogate" all may, made over.

    A date alone names nobody.
    """
    rule = policy()
    if rule.action == "off":
        return [list(group) for group in groups], []
    kept, held = [], []
    for number, group in enumerate(groups):
        found = find_all(group)
        if not any(hit.kind != "date" for hits in found for hit in hits):
            kept.append(list(group))
        elif rule.action == "quarantine":
            held.append(number)
        else:
            surrogates = surrogates_for(scope, hashlib.sha256(group[0].encode()).hexdigest())
            kept.append([surrogates.apply(text, hits) for text, hits in zip(group, found, strict=True)])
    return kept, held


def may_leave(texts: Sequence[str]) -> bool:
    """May a question be sent to a search engine as it is? Not when it holds what identifies a person, whatever the policy makes of it
    elsewhere: the own index answers it as well. Dates alone name nobody."""
    return policy().action == "off" or all(hit.kind == "date" for hits in find_all(texts) for hit in hits)


def outside_passages(texts: Sequence[str]) -> list[str]:
    """Passages of documents as they may leave for a search engine: as `outside_texts`, but a date of a guideline names nobody and stays."""
    if policy().action == "off":
        return list(texts)
    found = [[hit for hit in find_all([text])[0] if hit.kind != "date"] for text in texts]
    held = iter(outside_texts([text for text, hits in zip(texts, found, strict=True) if hits]))
    return [next(held) if hits else text for text, hits in zip(texts, found, strict=True)]


def outside_texts(texts: Sequence[str]) -> list[str]:
    """Texts as they may leave for a vector: surrogates or masks in the place of what identifies."""
    rule = policy()
    if rule.action == "off":
        return list(texts)
    found = [find_all([text])[0] for text in texts]
    if rule.action == "surrogate":
        surrogates = surrogates_for("vectors", "vectors")
        return [surrogates.apply(text, hits) if hits else text for text, hits in zip(texts, found, strict=True)]
    return [mask(text, hits) if hits else text for text, hits in zip(texts, found, strict=True)]
