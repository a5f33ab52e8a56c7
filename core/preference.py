"""Blind comparison of two versions: who stands left, what may be shown when, votes, and unsafe flags. Called by the bench.

Invariants: a blind pair's names, times and thinking leave this module only after its owner's vote is stored; a preference is
given once per pair, before the names are known, and is never changed; a pair with a failed side is void and never a win;
"unsafe" is no preference but a safety case, filed in the very transaction that stores it. Counting is in `core.standings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from secrets import SystemRandom
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core import audit, safety
from core.bench_sides import Contestant, chance_of_left, chats_of, find_evidence
from core.completions import split_completion
from core.datasets import store_completions, to_completion, to_prompt
from core.errors import Conflicting, NotFound, UserError
from core.models import get_version, require_role
from core.permit import permit
from core.records import Message, Prompt, Role, Vote
from core.rewards import normalised_rules
from core.scoring import Scored, open_scorer, store_scores
from db import tables as t
from db.engine import read_session, write_session

VOTERS = (Role.PRODUCT, Role.ENGINEER, Role.ADMIN)
REASONS = ("safer", "more_complete", "clearer", "shorter", "kinder", "other")
COIN = SystemRandom()

Mode = Literal["blind", "open"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How both sides are asked; stored with the pair. Without `max_new_tokens` each side writes as much as it can hold."""

    temperature: float
    seed: int
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison about to be streamed. `left` and `right` are version names and stay on the server in a blind pair, and so does
    which side reads passages before the question: `left_chats` and `right_chats` are what each is sent, the first that fits."""

    id: int
    mode: Mode
    left: str
    right: str
    prompt: Prompt
    is_toy: bool
    left_chats: tuple[tuple[Message, ...], ...]
    right_chats: tuple[tuple[Message, ...], ...]
    num_evidence: int = 0
    left_with_evidence: bool = False
    right_with_evidence: bool = False


@dataclass(frozen=True, slots=True)
class Produced:
    """What one side wrote and how long it took, in seconds; and how many passages stood before the question (None: not told)."""

    text: str
    finish_reason: str
    seconds: float
    num_passages: int | None = None


@dataclass(frozen=True, slots=True)
class RevealedSide:
    """What is told about one side once its reader may know."""

    version_id: int
    name: str
    content_hash: str
    kind: str
    is_toy: bool
    thinking: str
    seconds: float | None
    with_evidence: bool = False
    #: the passages that stood before its question, as many as its context had room for
    evidence: tuple[dict[str, Any], ...] = ()

    @property
    def contestant(self) -> Contestant:
        return Contestant(self.version_id, self.with_evidence)


@dataclass(frozen=True, slots=True)
class Reveal:
    left: RevealedSide
    right: RevealedSide


@dataclass(frozen=True, slots=True)
class Ballot:
    """One press of a vote key. `client_id` is made by the browser: the same press sent twice is stored once."""

    client_id: str
    vote: Vote | None = None
    unsafe_left: bool = False
    unsafe_right: bool = False
    reasons: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a ballot. `is_new` is False for a ballot that had already been stored."""

    vote_id: int
    is_new: bool
    case_ids: tuple[int, ...] = field(default=())


def voter(session: Session, user_id: int) -> t.User:
    """The account, if it may compare and vote now. Raises Forbidden."""
    return require_role(session.get(t.User, user_id), *VOTERS)


def open_pair(
    user_id: int,
    first: str,
    second: str,
    sample_id: int,
    *,
    mode: Mode,
    decoding: Decoding,
    first_with_evidence: bool = False,
    second_with_evidence: bool = False,
) -> Pair:
    """Make the pair before anything is streamed. Open mode keeps the chosen sides; blind mode places them.

    Raises Forbidden, UserError("bench.same_version"), NotFound("models.no_such_version" / "bench.no_such_question") and, where a side
    is to have evidence, what `core.evidence.passages` raises.
    """
    permit("preference.open_pair", user_id)
    if (first, first_with_evidence) == (second, second_with_evidence):
        raise UserError("bench.same_version")
    with read_session() as session:
        voter(session, user_id)
        sample = session.get(t.Sample, sample_id)
        if sample is None:
            raise NotFound("bench.no_such_question")
        prompt = to_prompt(sample)
    evidence = find_evidence(prompt) if first_with_evidence or second_with_evidence else []
    with write_session() as session:
        user = voter(session, user_id)
        one, two = get_version(session, first), get_version(session, second)
        sides = [Contestant(one.id, first_with_evidence), Contestant(two.id, second_with_evidence)]
        if mode == "blind" and not _is_first_left(session, user.id, *sides):
            sides.reverse()
        left, right = sides
        row = t.BenchPair(
            user_id=user.id,
            sample_id=sample_id,
            left_version_id=left.version_id,
            right_version_id=right.version_id,
            mode=mode,
            decoding=asdict(decoding),
            left_with_evidence=left.with_evidence,
            right_with_evidence=right.with_evidence,
            evidence=evidence,
        )
        session.add(row)
        session.flush()
        names = {one.id: one.name, two.id: two.name}
        return Pair(
            row.id,
            mode,
            names[left.version_id],
            names[right.version_id],
            prompt,
            one.is_toy or two.is_toy,
            left_chats=chats_of(prompt, evidence if left.with_evidence else None),
            right_chats=chats_of(prompt, evidence if right.with_evidence else None),
            num_evidence=len(evidence),
            left_with_evidence=left.with_evidence,
            right_with_evidence=right.with_evidence,
        )


def close_pair(user_id: int, pair_id: int, left: Produced, right: Produced) -> bool:
    """Store both answers and open the pair for votes. A side without an answer voids it: then False is returned."""
    if not (split_completion(left.text).answer and split_completion(right.text).answer):
        void_pair(user_id, pair_id, "empty_answer")
        return False
    with write_session() as session:
        pair = _own_pair(session, user_id, pair_id)
        if pair.status != "streaming":
            raise Conflicting("bench.pair_closed")
        prompt = to_prompt(session.get_one(t.Sample, pair.sample_id))
        ids = [
            store_completions(
                session,
                [(prompt, split_completion(side.text, side.finish_reason))],
                model_version_id=version_id,
                source="bench",
                decoding=pair.decoding | ({"with_evidence": True} if has_evidence else {}),
                job_id=None,
            )[0]
            for side, version_id, has_evidence in (
                (left, pair.left_version_id, pair.left_with_evidence),
                (right, pair.right_version_id, pair.right_with_evidence),
            )
        ]
        pair.left_completion_id, pair.right_completion_id = ids
        pair.decoding = {
            **pair.decoding,
            **{f"{name}_s": round(side.seconds, 3) for name, side in (("left", left), ("right", right))},
            **{f"{name}_passages": side.num_passages for name, side in (("left", left), ("right", right)) if side.num_passages is not None},
        }
        pair.status = "ready"
    return True


def void_pair(user_id: int, pair_id: int, reason: str) -> None:
    """A side failed or the person left: the pair can never be voted on. A pair that is already ready stays ready."""
    with write_session() as session:
        pair = _own_pair(session, user_id, pair_id)
        if pair.status == "streaming":
            pair.status, pair.void_reason = "void", reason


def cast(user_id: int, pair_id: int, ballot: Ballot) -> Stored:
    """Store a ballot and file its safety cases, in one transaction. The same `client_id` again returns the first result.

    After the first ballot the names are known: later ones may only add "unsafe" flags.
    Raises Forbidden, NotFound("bench.no_such_pair"), Conflicting("bench.pair_not_ready" / "bench.pair_void" / "bench.already_voted"),
    UserError("bench.empty_vote").
    """
    permit("preference.cast", user_id)
    if ballot.vote is None and not (ballot.unsafe_left or ballot.unsafe_right):
        raise UserError("bench.empty_vote")
    evidence = _evidence(user_id, pair_id, ballot)
    try:
        with write_session() as session:
            user = voter(session, user_id)
            same = session.scalar(select(t.BenchVote).where(t.BenchVote.user_id == user.id, t.BenchVote.client_id == ballot.client_id))
            if same is not None:
                return Stored(same.id, is_new=False)
            pair = _own_pair(session, user_id, pair_id, is_locked=True)
            if pair.status != "ready":
                raise Conflicting("bench.pair_void" if pair.status == "void" else "bench.pair_not_ready")
            if ballot.vote is not None and _has_ballot(session, pair):
                raise Conflicting("bench.already_voted")
            row = t.BenchVote(
                pair_id=pair.id,
                user_id=user.id,
                client_id=ballot.client_id,
                vote=ballot.vote.value if ballot.vote else None,
                unsafe_left=ballot.unsafe_left,
                unsafe_right=ballot.unsafe_right,
                reasons=[r for r in ballot.reasons if r in REASONS],
            )
            session.add(row)
            session.flush()
            _store_preference(session, pair, row)
            about = {"pair": pair.id, "mode": pair.mode, "vote": row.vote, "unsafe_left": row.unsafe_left, "unsafe_right": row.unsafe_right}
            audit.record(session, "vote", "bench_vote", row.id, actor_id=user.id, detail=about)
            cases = [_file(session, user, completion_id, scored, ballot.note) for completion_id, scored in evidence]
            return Stored(row.id, is_new=True, case_ids=tuple(cases))
    except IntegrityError as error:  # PostgreSQL: the same press arrived twice at once
        with read_session() as session:
            found = session.scalar(select(t.BenchVote).where(t.BenchVote.user_id == user_id, t.BenchVote.client_id == ballot.client_id))
        if found is None:
            raise error
        return Stored(found.id, is_new=False)


def reveal(user_id: int, pair_id: int) -> Reveal:
    """Names, hashes, times and thinking of both sides. Raises Conflicting("bench.vote_first") for a blind pair without a vote."""
    with read_session() as session:
        pair = _own_pair(session, user_id, pair_id)
        if pair.mode == "blind" and not _has_ballot(session, pair):
            raise Conflicting("bench.vote_first")
        sides = [
            replace(
                _revealed(session, version_id, completion_id, pair.decoding.get(f"{side}_s")),
                with_evidence=has_evidence,
                evidence=tuple(pair.evidence[: pair.decoding.get(f"{side}_passages", len(pair.evidence))]) if has_evidence else (),
            )
            for side, version_id, completion_id, has_evidence in (
                ("left", pair.left_version_id, pair.left_completion_id, pair.left_with_evidence),
                ("right", pair.right_version_id, pair.right_completion_id, pair.right_with_evidence),
            )
        ]
    return Reveal(sides[0], sides[1])


def _is_first_left(session: Session, user_id: int, first: Contestant, second: Contestant) -> bool:
    """The coin's word on where `first` stands in this person's next blind pair of these two."""
    counts = []
    for left, right in ((first, second), (second, first)):
        query = select(func.count(t.BenchPair.id)).where(
            t.BenchPair.user_id == user_id,
            t.BenchPair.mode == "blind",
            t.BenchPair.status != "void",
            t.BenchPair.left_version_id == left.version_id,
            t.BenchPair.left_with_evidence == left.with_evidence,
            t.BenchPair.right_version_id == right.version_id,
            t.BenchPair.right_with_evidence == right.with_evidence,
        )
        counts.append(session.scalar(query) or 0)
    return COIN.random() < chance_of_left(counts[0], counts[1])


def _own_pair(session: Session, user_id: int, pair_id: int, *, is_locked: bool = False) -> t.BenchPair:
    """The pair, if it is this person's; somebody else's does not exist for them."""
    pair = session.get(t.BenchPair, pair_id, with_for_update=True if is_locked else None)
    if pair is None or pair.user_id != user_id:
        raise NotFound("bench.no_such_pair")
    return pair


def _has_ballot(session: Session, pair: t.BenchPair) -> bool:
    return session.scalar(select(t.BenchVote.id).where(t.BenchVote.pair_id == pair.id).limit(1)) is not None


def _evidence(user_id: int, pair_id: int, ballot: Ballot) -> Sequence[tuple[int, Scored]]:
    """Rule scores of the flagged answers, so that the desk can show what the rules saw. Computed outside the write lock."""
    if not (ballot.unsafe_left or ballot.unsafe_right):
        return []
    with read_session() as session:
        pair = _own_pair(session, user_id, pair_id)
        flagged = [(ballot.unsafe_left, pair.left_completion_id), (ballot.unsafe_right, pair.right_completion_id)]
        ids = [completion_id for is_flagged, completion_id in flagged if is_flagged and completion_id is not None]
        prompt = to_prompt(session.get_one(t.Sample, pair.sample_id))
        completions = [to_completion(session.get_one(t.Completion, i)) for i in ids]
        scorer = open_scorer(session)
    return list(zip(ids, scorer.score([prompt] * len(ids), completions, with_teacher=False), strict=True))


def _file(session: Session, user: t.User, completion_id: int, scored: Scored, note: str) -> int:
    is_scored = session.scalar(select(t.RuleScore.id).where(t.RuleScore.completion_id == completion_id).limit(1)) is not None
    if not is_scored:
        store_scores(session, [(completion_id, scored)])
    completion = session.get_one(t.Completion, completion_id)
    value = normalised_rules(scored.rules, open_scorer(session).config)
    return safety.file_case(session, completion, reporter=user, origin="bench", note=note, rules_value=value).id


def _store_preference(session: Session, pair: t.BenchPair, vote: t.BenchVote) -> None:
    """A decisive blind vote between answers that nobody called unsafe is a preference pair. With evidence it is none: the prompt of a
    training pair has no passages in it, so it would teach to cite what is not there."""
    if pair.left_with_evidence or pair.right_with_evidence:
        return
    if pair.mode != "blind" or vote.vote not in (Vote.LEFT, Vote.RIGHT) or vote.unsafe_left or vote.unsafe_right:
        return
    left = session.get_one(t.Completion, pair.left_completion_id)
    right = session.get_one(t.Completion, pair.right_completion_id)
    if left.text == right.text:
        return
    chosen, rejected = (left, right) if vote.vote == Vote.LEFT else (right, left)
    meta = {"chosen_version_id": chosen.model_version_id, "rejected_version_id": rejected.model_version_id, "side": vote.vote}
    session.add(
        t.PreferencePair(sample_id=pair.sample_id, chosen=chosen.text, rejected=rejected.text, source="vote", vote_id=vote.id, meta=meta)
    )


def _revealed(session: Session, version_id: int, completion_id: int | None, seconds: float | None) -> RevealedSide:
    version = session.get_one(t.ModelVersion, version_id)
    completion = session.get(t.Completion, completion_id) if completion_id is not None else None
    thinking = completion.thinking if completion else ""
    return RevealedSide(version.id, version.name, version.content_hash, version.kind, version.is_toy, thinking, seconds)
