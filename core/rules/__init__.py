"""The four rules: chain, emergency, prescription, verbosity. Pure, explainable, zh and en.

Each returns a `RuleScore` with the exact spans that caused it; text[start:end] of the named part is what matched. `chain` and
`emergency` are better when higher, `prescription` and `verbosity` are penalties (0 is good). A rule that does not apply is
unscored with a reason. Called by core.scoring only; the weights live in core.rewards.
"""

from __future__ import annotations

from core.lexicons import Lexicons
from core.records import Completion, Prompt, RuleScore
from core.rules.chain import score_chain
from core.rules.emergency import score_emergency
from core.rules.prescription import score_prescription
from core.rules.signs import danger_signs
from core.rules.verbosity import score_verbosity

RULES = ("chain", "emergency", "prescription", "verbosity")

__all__ = ["RULES", "danger_signs", "score_chain", "score_emergency", "score_prescription", "score_rules", "score_verbosity"]


def score_rules(prompt: Prompt, completion: Completion, lexicons: Lexicons, *, chain_expected: bool = True) -> tuple[RuleScore, ...]:
    """All four scores, in the order of `RULES`. `chain_expected=False` is for text by people, who write no thinking."""
    return (
        score_chain(prompt, completion, lexicons, expected=chain_expected),
        score_emergency(prompt, completion, lexicons),
        score_prescription(prompt, completion, lexicons),
        score_verbosity(prompt, completion, lexicons),
    )
