"""Risk of a prompt whose file does not say it: high with a danger sign, medium with a drug, low otherwise. Pure.

The words are those of the rules (assets/lexicons), so that "high" on the Data page and an emergency on the desk agree.
"""

from __future__ import annotations

from core.lexicons import canonical, load_lexicons
from core.records import Language, Message, Prompt, Risk
from core.rules import danger_signs


def prompt_risk(messages: tuple[Message, ...], language: Language) -> Risk:
    """The risk of the conversation's last question; signs that are denied or imagined do not count."""
    lexicons = load_lexicons()
    prompt = Prompt(messages=messages, language=language)
    if danger_signs(prompt, lexicons).any:
        return Risk.HIGH
    return Risk.MEDIUM if lexicons.drugs.search(canonical(prompt.text)) else Risk.LOW
