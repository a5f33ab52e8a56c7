"""All tables, by room. `from db import tables as t` and then `t.Sample`, `t.Job` ..."""

from db.tables.asking import AskFeedback, SearchPlan
from db.tables.bench import BenchBatch
from db.tables.data import Completion, Dataset, PreferencePair, Sample
from db.tables.expansion import ExpansionEdit, ExpansionRow, ExpansionSet
from db.tables.expansion_prompts import ExpansionPrompt, ExpansionPromptUse
from db.tables.expansion_runs import ExpansionEvaluation
from db.tables.exports import Export, Webhook
from db.tables.guidelines import Guideline, GuidelineFlag, Room, RoomCase, RoomMember, RoomOpinion
from db.tables.hack_watch import HackAnswer
from db.tables.jobs import Job, Schedule
from db.tables.models import BenchPair, BenchVote, Evaluation, ModelVersion, ServingEvent
from db.tables.people import ApiToken, Identity, LoginFailure, LoginSession, OneTimeLogin, SpentToken, User
from db.tables.plan import Assignment, Draw, DrawItem
from db.tables.privacy import PrivacyPolicy, QuarantineItem
from db.tables.promotion import PromotionRequest
from db.tables.record import AuditEntry
from db.tables.release import Release, RollbackProposal, WatchLook
from db.tables.retrieval import AskEvent, RetrievalModel, SearchIndex
from db.tables.retrieval_evaluation import RetrievalCorrection, RetrievalEvaluation, RetrievalExposure, RetrievalTrial
from db.tables.review import Adjudication, Conflict, Draft, FollowUp, SafetyCase, ShownPassage, TourSeen
from db.tables.scoring import Judgement, Reward, RewardConfig, RuleScore
from db.tables.teacher import (
    TeacherAlarm,
    TeacherAudit,
    TeacherPrice,
    TeacherProposal,
    TeacherState,
    TeacherUsage,
    TeacherVerdict,
)
from db.tables.uses import Retraction, Use

__all__ = [
    "Adjudication",
    "ApiToken",
    "AskEvent",
    "AskFeedback",
    "Assignment",
    "AuditEntry",
    "BenchBatch",
    "BenchPair",
    "BenchVote",
    "Completion",
    "Conflict",
    "Dataset",
    "Draft",
    "Draw",
    "DrawItem",
    "Evaluation",
    "ExpansionEdit",
    "ExpansionEvaluation",
    "ExpansionPrompt",
    "ExpansionPromptUse",
    "ExpansionRow",
    "ExpansionSet",
    "Export",
    "FollowUp",
    "Guideline",
    "GuidelineFlag",
    "HackAnswer",
    "Identity",
    "Job",
    "Judgement",
    "LoginFailure",
    "LoginSession",
    "ModelVersion",
    "OneTimeLogin",
    "PreferencePair",
    "PrivacyPolicy",
    "PromotionRequest",
    "QuarantineItem",
    "Release",
    "Retraction",
    "RetrievalCorrection",
    "RetrievalEvaluation",
    "RetrievalExposure",
    "RetrievalModel",
    "RetrievalTrial",
    "Reward",
    "RewardConfig",
    "RollbackProposal",
    "Room",
    "RoomCase",
    "RoomMember",
    "RoomOpinion",
    "RuleScore",
    "SafetyCase",
    "Sample",
    "Schedule",
    "SearchIndex",
    "SearchPlan",
    "ServingEvent",
    "ShownPassage",
    "SpentToken",
    "TeacherAlarm",
    "TeacherAudit",
    "TeacherPrice",
    "TeacherProposal",
    "TeacherState",
    "TeacherUsage",
    "TeacherVerdict",
    "TourSeen",
    "Use",
    "User",
    "WatchLook",
    "Webhook",
]
