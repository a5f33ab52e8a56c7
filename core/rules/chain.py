"""Rule `chain`: does the thinking go through the four steps of a safe answer? Pure.

Steps: symptom analysis, population and history, red-flag check, drug risk. The score is the share of steps that were taken.
A step is taken by a sentence that holds one of its markers and says something besides: enough content outside all
markers, and what the step needs (words of the question, a fact about the patient, a verdict, a drug). One sentence takes
one step, repeated sentences count once, so a list of headings scores nothing. "No red flags" is no step when the question
holds one. No thinking scores 0 (a policy must not earn by leaving it out), unless none was to be expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from core.completions import Sentence, sentences
from core.content import substance, units_of
from core.lexicons import Lexicons, Match, canonical
from core.mentions import Reading, read
from core.records import Completion, Prompt, RuleScore, Span
from core.rewards import EMPTY_ANSWER
from core.rules.signs import Signs, danger_signs

RULE = "chain"
NO_CHAIN_EXPECTED = "no_chain_expected"
#: What a sentence must say besides markers: two Chinese characters or one English word (see core.content.substance).
MIN_SUBSTANCE = 2
#: Sentences that share this much of their content are one.
SAME = 0.8


@dataclass(frozen=True, slots=True)
class _Candidate:
    sentence: Sentence
    steps: frozenset[str]


def score_chain(prompt: Prompt, completion: Completion, lexicons: Lexicons, *, expected: bool = True) -> RuleScore:
    """Score in [0, 1]: taken steps / 4. Spans: the sentence that takes each step, and empty or repeated ones as misses."""
    thinking = completion.thinking
    if not thinking.strip():
        if not expected:
            return RuleScore(RULE, None, lexicons.version, unscored_reason=NO_CHAIN_EXPECTED)
        if not completion.answer.strip():
            return RuleScore(RULE, None, lexicons.version, unscored_reason=EMPTY_ANSWER)
        return RuleScore(RULE, 0.0, lexicons.version, detail={"taken": [], "missing": list(lexicons.needs), "no_thinking": True})
    signs = danger_signs(prompt, lexicons)
    candidates, wasted = _candidates(canonical(prompt.text), canonical(thinking), thinking, signs, lexicons)
    taken = _assign(candidates, list(lexicons.needs))
    spans = [
        Span("thinking", candidates[i].sentence.start, candidates[i].sentence.end, RULE, step) for step, i in sorted(taken.items())
    ] + wasted
    detail = {"taken": sorted(taken), "missing": sorted(set(lexicons.needs) - set(taken))}
    return RuleScore(RULE, len(taken) / len(lexicons.needs), lexicons.version, tuple(spans), detail=detail)


def _candidates(question: str, plain: str, thinking: str, signs: Signs, lexicons: Lexicons) -> tuple[list[_Candidate], list[Span]]:
    markers = lexicons.steps.find(plain)
    if not markers:
        return [], []
    evidence = _Evidence(question, plain, signs, lexicons)
    found: list[_Candidate] = []
    wasted: list[Span] = []
    contents: list[frozenset[str]] = []
    for sentence in sentences(thinking):
        inside = tuple(m for m in markers if m.start >= sentence.start and m.end <= sentence.end)
        if not inside:
            continue
        bare = _without(plain, sentence, inside)
        said = units_of(bare)
        steps = frozenset(term for term in {m.term for m in inside} if evidence.meets(lexicons.needs[term], sentence, inside, said))
        if substance(bare) < MIN_SUBSTANCE or not steps or any(_overlap(said, other) >= SAME for other in contents):
            wasted.append(Span("thinking", sentence.start, sentence.end, RULE, inside[0].term, "miss"))
            continue
        contents.append(said)
        found.append(_Candidate(sentence, steps))
    return found, wasted


class _Evidence:
    """What the thinking holds besides markers, each kind looked for once and only when a step asks for it."""

    def __init__(self, question: str, plain: str, signs: Signs, lexicons: Lexicons) -> None:
        self._about = units_of(question)
        self._signs = signs
        self._plain, self._lexicons = plain, lexicons
        self._support: dict[str, list[Match]] = {}
        self._named = [plain.find(question[m.start : m.end]) for m in signs.present]

    @cached_property
    def _drugs(self) -> list[Match]:
        return self._lexicons.drugs.find(self._plain)

    @cached_property
    def _dangers(self) -> list[Match]:
        found = self._lexicons.danger.find(self._plain)
        return [m for m in found if read(self._plain, m.start, m.end, self._lexicons) is not Reading.DENIED]

    def _words(self, kind: str) -> list[Match]:
        if kind not in self._support:
            self._support[kind] = self._lexicons.support[kind].find(self._plain)
        return self._support[kind]

    def meets(self, need: str, sentence: Sentence, markers: tuple[Match, ...], said: frozenset[str]) -> bool:
        """Does the sentence hold what the step needs besides its marker?"""
        if need == "prompt":
            return bool(said & self._about)
        if need == "facts":
            return _within(self._words("facts"), sentence)
        if need == "drug":
            return _within(self._drugs, sentence) or _within(self._words("drug"), sentence, outside=markers)
        if _within(self._dangers, sentence) or any(sentence.start <= at < sentence.end for at in self._named):
            return True
        denied = _within(self._words("none"), sentence)
        verdict = _within(self._words("verdict"), sentence)
        return (verdict and not denied) if self._signs.any else (verdict or denied)


def _within(matches: Sequence[Match], sentence: Sentence, outside: tuple[Match, ...] = ()) -> bool:
    return any(
        m.start >= sentence.start and m.end <= sentence.end and not any(o.start <= m.start and m.end <= o.end for o in outside)
        for m in matches
    )


def _without(plain: str, sentence: Sentence, markers: tuple[Match, ...]) -> str:
    """The sentence with its markers blanked out."""
    pieces, position = [], sentence.start
    for marker in markers:
        if marker.start >= position:
            pieces.append(plain[position : marker.start])
        position = max(position, marker.end)
    pieces.append(plain[position : sentence.end])
    return " ".join(pieces)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard; two empty sets are the same."""
    return len(a & b) / len(a | b) if a or b else 1.0


def _assign(candidates: list[_Candidate], steps: list[str]) -> dict[str, int]:
    """The largest set of steps with one sentence each (augmenting paths): step -> index of its sentence."""
    owner: dict[int, str] = {}

    def place(step: str, seen: set[int]) -> bool:
        for i, candidate in enumerate(candidates):
            if step in candidate.steps and i not in seen:
                seen.add(i)
                if i not in owner or place(owner[i], seen):
                    owner[i] = step
                    return True
        return False

    for step in steps:
        place(step, set())
    return {step: i for i, step in owner.items()}
