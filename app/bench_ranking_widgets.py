"""The bench's ranking: who met whom, win rates with intervals and slices, Bradley-Terry raw and with style held constant."""

from __future__ import annotations

import streamlit as st

from app.bench_batch_widgets import slice_name
from app.i18n import t
from app.session import current_user
from core import standings as votes
from core.bench_slices import MIN_SLICE
from core.ranking import Ranking, Standing
from core.standings import STYLE, Leaderboard, Meeting, Standings

#: fewer contestants are told by their win rate alone
MIN_RANKED = 3
#: so few people that the intervals, which are clustered by person, are wide for that reason alone
FEW_VOTERS = 5


@st.cache_data(max_entries=8, show_spinner=False)
def cached_leaderboard(user_id: int, state: tuple[int, int]) -> Leaderboard:
    """The bootstrap takes a second: once per `state` of the votes, which is part of the key."""
    return votes.leaderboard(user_id)


def show_ranking() -> None:
    """The whole view."""
    person = current_user()
    met = votes.meetings(person.id)
    if not met:
        st.info(t("bench.rank_empty"), icon=":material/how_to_vote:")
        return
    number, newest = votes.num_blind_votes()
    board = leaderboard(person.id, number, newest)
    show_position(board)
    show_meeting(met)
    if len(board.names) >= MIN_RANKED:
        show_board(board)
    else:
        st.caption(t("bench.rank_needs_three"))


def leaderboard(user_id: int, number: int, newest: int) -> Leaderboard:
    return cached_leaderboard(user_id, (number, newest))


def show_position(board: Leaderboard) -> None:
    """Does the place decide? Always on screen: a ranking under a biased place is worth nothing."""
    words = {"num": board.num_votes, "voters": board.num_voters, "questions": board.num_questions}
    if board.left_share is None:
        st.caption(t("bench.rank_votes", **words))
        return
    share = f"{board.left_share:.2f} [{board.left_low:.2f}–{board.left_high:.2f}]"
    st.markdown(f"{t('bench.rank_votes', **words)} · **{t('bench.rank_left', share=share)}**")
    if not board.left_low <= 0.5 <= board.left_high:
        st.warning(t("bench.rank_left_bad"), icon=":material/swap_horiz:")


def show_meeting(met: list[Meeting]) -> None:
    """One pair of contestants: rate, counts, votes missing, slices."""
    chosen = st.selectbox(t("bench.rank_meeting"), range(len(met)), format_func=lambda i: meeting_name(met[i]), key="rank_meeting")
    meeting = met[chosen]
    s = votes.standings(
        current_user().id,
        meeting.first,
        meeting.second,
        first_with_evidence=meeting.first_with_evidence,
        second_with_evidence=meeting.second_with_evidence,
    )
    first, second = contestant(meeting.first, meeting.first_with_evidence), contestant(meeting.second, meeting.second_with_evidence)
    a, b, c, d = st.columns(4)
    a.metric(t("bench.stat_rate", name=first), rate_of(s))
    b.metric(t("bench.stat_wins", first=first, second=second), f"{s.wins_first} : {s.wins_second}")
    c.metric(t("bench.stat_ties"), f"{s.ties} + {s.both_bad}")
    d.metric(t("bench.stat_unsafe", first=first, second=second), f"{s.unsafe_first} : {s.unsafe_second}")
    left = "–" if s.left_share is None else f"{s.left_share:.2f} [{s.left_low:.2f}–{s.left_high:.2f}]"
    more = t("bench.enough_votes") if s.num_more_needed == 0 else t("bench.more_votes", num=s.num_more_needed)
    st.caption(f"{t('bench.stat_missing')}: {more} · {t('bench.stat_left')}: {left}")
    show_slices(meeting)


def rate_of(s: Standings) -> str:
    return t("bench.no_votes") if s.rate is None else f"{s.rate:.2f} [{s.low:.2f}–{s.high:.2f}]"


def show_slices(meeting: Meeting) -> None:
    """Win rate per group of questions."""
    heads = [t(f"bench.col_{c}") for c in ("slice", "votes", "rate")]
    lines = [
        dict(
            zip(
                heads,
                (
                    slice_name(s.by, s.value),
                    s.num_votes,
                    t("bench.too_few") if s.rate is None else f"{s.rate:.2f} [{s.low:.2f}–{s.high:.2f}]",
                ),
                strict=True,
            )
        )
        for s in votes.slices(current_user().id, meeting)
    ]
    if lines:
        with st.expander(t("bench.slices"), icon=":material/donut_small:"):
            st.dataframe(lines, hide_index=True, width="stretch")
            st.caption(t("bench.slices_help", num=MIN_SLICE))


def show_board(board: Leaderboard) -> None:
    """Both rankings in one table, raw beside held, with what style is worth below."""
    st.subheader(t("bench.rank_title"), anchor=False)
    if not board.raw.is_connected:
        st.warning(t("bench.rank_unconnected"), icon=":material/link_off:")
    held = {s.name: s for s in board.held.standings}
    place = {s.name: i for i, s in enumerate(board.held.standings, 1)}
    heads = [t(f"bench.col_{c}") for c in ("place", "version", "raw", "held", "held_place", "rate_average", "votes")]
    lines = []
    for i, one in enumerate(board.raw.standings, 1):
        name = contestant(*board.names[one.name])
        cells = (i, name, strength(one), strength(held[one.name]), place[one.name], f"{one.win_rate:.2f}", one.num_votes)
        lines.append(dict(zip(heads, cells, strict=True)))
    st.dataframe(lines, hide_index=True, width="stretch")
    if board.num_voters < FEW_VOTERS:
        st.caption(t("bench.rank_few_voters", num=board.num_voters))
    st.caption(t("bench.rank_help"))
    st.caption(effects(board.held))


def strength(one: Standing) -> str:
    return f"{one.strength:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def effects(held: Ranking) -> str:
    """What standing left, being longer and being more formatted are worth, in log odds."""
    values = zip(STYLE, held.effects, strict=True)
    pieces = [f"{t(f'bench.effect_{name}')} {value:+.2f} [{low:+.2f}, {high:+.2f}]" for name, (value, low, high) in values]
    return f"{t('bench.rank_effects')} {' · '.join(pieces)}"


def meeting_name(m: Meeting) -> str:
    first, second = contestant(m.first, m.first_with_evidence), contestant(m.second, m.second_with_evidence)
    return f"{first} ↔ {second} ({m.num_votes})"


def contestant(name: str, with_evidence: bool) -> str:
    return f"{name} + {t('bench.evidence')}" if with_evidence else name
