"""Expansions written without a model, from what a team has: questions with the passage that answers each.

The lines must be learnable from the question and useful to a search engine:

    lex   the topic as the question writes it, with words of the passage that the question lacks. Of these, words that passages of
          *other* questions with the same words also hold (leave-one-out, as a translation table: Berger and Lafferty, SIGIR 1999)
          come before words that are only rare: a small model can learn the former, and never the latter
    vec   another person's question about the same passage, the asker's own longer wording, or a paraphrase by intent
    hyde  the sentence of the passage that says most about the question, without greetings, names, numbers and addresses

Pure. Called by core.expansion.generate and its job; `docs/benchmarks_expansion.md` measures what the lines find.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.expansion import intents, terms
from core.expansion.phrases import Phrases, sentences
from core.expansion.schema import Line, Row
from core.retrieval.tokens import QUESTION_PHRASES

#: words of each passage that take part in the table, and questions that are looked at per word
PER_PASSAGE = 40
SAMPLE = 400
#: added words per lex line, and lines
PER_LINE = 3
NUM_LEX = 2
NUM_VEC = 2
#: how much association counts beside rarity
ASSOCIATION = 4.0
#: who can be recognised by a sentence: telephone numbers, addresses, dates, numbers of documents
PERSONAL = re.compile(
    r"\d{6,}|\d{3,4}[-\s]\d{3,4}|@|https?:|www\.|QQ|微信"
    r"|\d{4}\s*[年/-]\s*\d{1,2}|\d+岁|[张王李赵陈刘杨黄周吴](?:医生|大夫|主任|教授)|\bDr\.? [A-Z]"
)
#: to one person, not about the matter
ADDRESSED = re.compile("你好|您好|感谢|谢谢|祝|咨询|希望(?:我|能)|解释对|你|您|\\b(?:hello|thank|dear|regards)\\b", re.I)
#: how a sentence begins that goes on from another
OPENING = re.compile("^(?:但是|此外|另外|所以|因此|那么|首先|其次|同时|而且|不过|通常来讲|一般来说|[、，,]|\\d[、.．])+")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the id of a passage that answers it. `wordings`: the same asker's other words, if any."""

    question: str
    document: str
    wordings: tuple[str, ...] = ()


class OfflineWriter:
    """Built once over the passages and the pairs; `row(i)` writes the expansion of pair i."""

    def __init__(self, passages: Mapping[str, str], pairs: Sequence[Pair]) -> None:
        self.pairs = [pair for pair in pairs if pair.document in passages]
        self._passages = passages
        self._phrases = Phrases(passages.values())
        self._terms = [self._passage_terms(pair.document) for pair in self.pairs]
        self._by_word: dict[str, list[int]] = defaultdict(list)
        self._by_document: dict[str, list[int]] = defaultdict(list)
        for i, pair in enumerate(self.pairs):
            self._by_document[pair.document].append(i)
            for word in self._question_words(pair.question):
                self._by_word[word].append(i)

    def rows(self, numbers: Iterable[int] | None = None) -> Iterable[Row]:
        """Rows of the pairs of which lines could be written, in order."""
        for i in range(len(self.pairs)) if numbers is None else numbers:
            row = self.row(i)
            if row is not None:
                yield row

    def row(self, i: int) -> Row | None:
        """None when the passage says nothing that the question does not."""
        pair = self.pairs[i]
        added = self._added(i)
        lex = self._lex(pair.question, added)
        vec = self._vec(i)
        if not lex or not vec:
            return None
        hyde = self._hyde(pair, added)
        lines = [*(Line("lex", text) for text in lex), *(Line("vec", text) for text in vec), *([Line("hyde", hyde)] if hyde else [])]
        language = "zh" if terms.has_cjk(pair.question) else "en"
        intent = intents.asked(pair.question).intent
        extra = {"category": intent} if intent else {}
        return Row(pair.question, tuple(lines), language, f"doc:{pair.document}", "corpus", i + 1, extra)

    # --- words ------------------------------------------------------------------------------------------------------------

    def _question_words(self, question: str) -> set[str]:
        """What the table is keyed by: the question's key words, and what it asks."""
        intent = intents.asked(question).intent
        return terms.key_terms(question) | ({f"?{intent}"} if intent else set())

    def _passage_terms(self, document: str) -> dict[str, float]:
        """The passage's heaviest phrases: frequency (damped) times rarity."""
        counts = Counter(self._phrases.of(self._passages[document]))
        scored = {p: (1 + math.log(n)) * self._phrases.rarity(p) for p, n in counts.items()}
        return dict(sorted(scored.items(), key=lambda item: (-item[1], item[0]))[:PER_PASSAGE])

    def _added(self, i: int) -> list[str]:
        """Phrases of the passage that the question lacks, best first."""
        pair = self.pairs[i]
        asked = set(terms.words(pair.question)) | {w.strip(terms.EDGES) for w in terms.words(pair.question)}
        association: dict[str, float] = defaultdict(float)
        for word in self._question_words(pair.question):
            others = [j for j in self._by_word[word] if self.pairs[j].document != pair.document]
            if not others:
                continue
            step = max(1, len(others) // SAMPLE)
            seen = Counter(phrase for j in others[::step] for phrase in self._terms[j])
            size = len(others[::step])
            rarity = math.log(1 + len(self.pairs) / len(self._by_word[word]))
            for phrase in self._terms[i]:
                if seen[phrase] > 1:
                    association[phrase] += rarity * seen[phrase] / (size + 5) * self._phrases.rarity(phrase)
        most = max(association.values(), default=1.0)
        heaviest = max(self._terms[i].values(), default=1.0)
        scored = {
            phrase: weight / heaviest + ASSOCIATION * association.get(phrase, 0.0) / most
            for phrase, weight in self._terms[i].items()
            if not set(terms.words(phrase)) <= asked and phrase.lower() not in pair.question.lower()
        }
        return sorted(scored, key=lambda phrase: (-scored[phrase], phrase))

    def _lex(self, question: str, added: Sequence[str]) -> list[str]:
        """Lines of the topic and added phrases, no word twice within all of them."""
        topic = self.topic(question)
        lines: list[str] = []
        used = set(terms.words(topic))
        rest = list(added)
        for _ in range(NUM_LEX):
            chosen: list[str] = []
            for phrase in list(rest):
                own = set(terms.words(phrase))
                if len(chosen) == PER_LINE:
                    break
                if own & used:
                    continue
                rest.remove(phrase)
                used |= own
                chosen.append(phrase)
            if chosen:
                lines.append(" ".join([topic, *chosen]))
        return lines

    @staticmethod
    def topic(question: str) -> str:
        """What the question is about, in few words, as it is written."""
        found = intents.asked(question).topic
        if terms.has_cjk(question):
            names = sorted((n for n in terms.entities(question) if n in question), key=question.find)
            return " ".join(names[:2]) or found[:12]
        kept = [w.strip(terms.EDGES) for w in found.split() if w.lower().strip(terms.EDGES) not in terms.lists().key_term_stop]
        return " ".join(kept[:6]) or found

    # --- sentences --------------------------------------------------------------------------------------------------------

    def _vec(self, i: int) -> list[str]:
        pair = self.pairs[i]
        others = [self.pairs[j].question for j in self._by_document[pair.document] if j != i]
        own = [s for wording in pair.wordings for s in sentences(wording) if _is_question_about(s, pair.question)]
        found: list[str] = []
        for text in (*others, *sorted(own, key=len), *intents.paraphrases(pair.question)):
            text = text.strip(" ?？。.!！,，")
            is_new = all(terms.are_diverse(text, other, 3) for other in (*found, pair.question))
            if terms.is_natural(text) and terms.width(text) <= 120 and is_new and not PERSONAL.search(text):
                found.append(text)
            if len(found) == NUM_VEC:
                break
        if not found:
            topic = intents.asked(pair.question).topic
            found = [f"{topic}应该怎么办，平时需要注意什么"] if terms.has_cjk(topic) else [f"what should a patient know about {topic}"]
        return found

    def _hyde(self, pair: Pair, added: Sequence[str]) -> str:
        """The sentence with most of the question's and of the added words, cut to a passage's length."""
        wanted = dict.fromkeys(terms.key_terms(pair.question), 2.0) | {w: 1.0 for phrase in added[:8] for w in terms.words(phrase)}
        best, most = "", 0.0
        for position, sentence in enumerate(sentences(self._passages[pair.document])):
            if PERSONAL.search(sentence) or ADDRESSED.search(sentence) or terms.width(sentence) < 30:
                continue
            worth = sum(wanted.get(w.strip(terms.EDGES), 0) for w in set(terms.words(sentence))) / (1 + 0.03 * position)
            if worth > most:
                best, most = sentence, worth
        best = OPENING.sub("", best)
        topic = self.topic(pair.question)
        if best and not terms.key_terms(pair.question) & set(terms.words(best)):
            best = f"{topic}：{best}" if terms.has_cjk(best) else f"{topic}: {best}"
        return _cut(best, 195)


def _is_question_about(text: str, question: str) -> bool:
    """Does a sentence of the asker's story ask, about the same thing, and in one line's length?"""
    names = terms.entities(question)
    asks = QUESTION_PHRASES.search(text) or text.endswith("?")
    return bool(asks) and 16 <= terms.width(text) <= 80 and terms.holds_key_term(text, question) and terms.holds_any(text, names)


def _cut(text: str, most: int) -> str:
    """At most `most` columns, ended at a word."""
    if terms.width(text) <= most:
        return text
    while terms.width(text) > most:
        text = text[: len(text) - max(1, (terms.width(text) - most) // 2)]
    return text.rsplit(" ", 1)[0] if not terms.has_cjk(text) else re.sub("[，、；,;][^，、；,;]*$", "。", text) if "，" in text else text
