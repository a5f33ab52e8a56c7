"""What can be run: kind -> config model, module that trains, queue, title. Training code is spawned by name, never imported."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import NotFound
from core.jobs import configs as c
from core.jobs import configs_ask as ca
from core.jobs import configs_bench as cb
from core.jobs import configs_doc2query as d2q
from core.jobs import configs_embedding as emb
from core.jobs import configs_evaluation as ce
from core.jobs import configs_expansion_data as exd
from core.jobs import configs_expansion_export as ship
from core.jobs import configs_expansion_training as ex
from core.jobs import configs_release as cr
from core.jobs import configs_retrieval as retrieval
from core.jobs import configs_retrieval_evaluation as cq
from core.jobs import configs_review as cv
from core.jobs import configs_reward as reward
from core.jobs import configs_teacher as teacher
from core.jobs import configs_training as ct


@dataclass(frozen=True, slots=True)
class JobKind:
    """`module` is run as `python -m module --run-dir DIR`; `queue` is gpu (one at a time) or cpu."""

    name: str
    config: type[c.JobConfig]
    module: str
    queue: str
    en: str
    zh: str
    max_attempts: int = 2
    #: offered in the Jobs page's "new job" form
    is_startable: bool = True


KINDS: dict[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind("demo_base", c.DemoBaseConfig, "training.demo_base", "gpu", "Build the demo base model", "构建演示基础模型"),
        JobKind("sft", ct.SFTConfig, "training.sft", "gpu", "Supervised fine-tuning (SFT)", "监督微调（SFT）"),
        JobKind("sample", c.SampleConfig, "training.sample", "gpu", "Sample completions", "采样回答"),
        JobKind("score", c.ScoreConfig, "training.score", "cpu", "Score completions", "为回答评分"),
        JobKind("conflicts", c.ConflictsConfig, "training.conflicts", "cpu", "Detect conflicts", "检测分歧"),
        JobKind("draw", cv.DrawConfig, "training.draw", "cpu", "Draw the week's cases", "抽取本周病例"),
        JobKind("ppo", c.PPOConfig, "training.ppo", "gpu", "Reinforcement learning (PPO)", "强化学习（PPO）"),
        JobKind("grpo", ct.GRPOConfig, "training.grpo", "gpu", "Reinforcement learning (GRPO)", "强化学习（GRPO）"),
        JobKind(
            "preferences", ct.PreferencesConfig, "training.preferences", "gpu", "Learn from preferences (DPO, KTO)", "偏好学习（DPO、KTO）"
        ),
        JobKind("evaluate", ce.EvaluateConfig, "training.evaluate", "gpu", "Evaluate versions", "评测版本"),
        JobKind(
            "predict", ce.PredictConfig, "training.predict", "gpu", "Answer a file of questions", "批量回答问题文件", is_startable=False
        ),
        JobKind("compare", cb.CompareConfig, "training.compare", "gpu", "Compare two versions", "批量对比两个版本", is_startable=False),
        JobKind("package", cr.PackageConfig, "training.package", "cpu", "Write a release package", "制作发布包"),
        JobKind("watch", cr.WatchConfig, "training.watch", "cpu", "Watch the serving version", "监测在用版本"),
        JobKind("index", retrieval.IndexConfig, "training.index", "cpu", "Build or update a search index", "构建或更新检索索引"),
        JobKind("index_move", retrieval.IndexMoveConfig, "training.index_move", "cpu", "Move a search index to an engine", "迁移检索索引"),
        JobKind(
            "calibrate_ask",
            ca.CalibrateAskConfig,
            "training.calibrate_ask",
            "cpu",
            'Calibrate "unknown" of an index',
            "校准索引的“无依据”阈值",
        ),
        JobKind("embedding", emb.EmbeddingConfig, "training.embedding", "gpu", "Train an embedding", "训练向量模型"),
        JobKind("reranker", emb.RerankerConfig, "training.reranker", "gpu", "Train a reranker", "训练重排模型"),
        JobKind("doc2query", d2q.Doc2QueryConfig, "training.doc2query", "gpu", "Train a question writer", "训练问题生成模型"),
        JobKind(
            "evaluate_retrieval",
            cq.EvaluateRetrievalConfig,
            "training.evaluate_retrieval",
            "cpu",
            "Measure retrieval stage by stage",
            "逐级评测检索",
        ),
        JobKind(
            "learn_retrieval",
            cq.LearnRetrievalConfig,
            "training.learn_retrieval",
            "cpu",
            "Let retrieval learn from use",
            "检索从使用中学习",
        ),
        JobKind(
            "expansion_data",
            exd.ExpansionDataConfig,
            "training.expansion_data",
            "cpu",
            "Query expansion: make a set",
            "查询扩展：生成数据集",
        ),
        JobKind(
            "expansion_base",
            ex.ExpansionBaseConfig,
            "training.expansion_base",
            "gpu",
            "Query expansion: small base",
            "查询扩展：小型基础模型",
        ),
        JobKind(
            "expansion_terms",
            ex.ExpansionTermsConfig,
            "training.expansion_terms",
            "gpu",
            "Query expansion: term model",
            "查询扩展：词项模型",
        ),
        JobKind(
            "expansion_sft", ex.ExpansionSFTConfig, "training.expansion_sft", "gpu", "Query expansion: SFT", "查询扩展：监督微调（SFT）"
        ),
        JobKind(
            "expansion_grpo",
            ex.ExpansionGRPOConfig,
            "training.expansion_grpo",
            "gpu",
            "Query expansion: GRPO",
            "查询扩展：强化学习（GRPO）",
        ),
        JobKind(
            "expansion_evaluate",
            ex.ExpansionEvaluateConfig,
            "training.expansion_evaluate",
            "gpu",
            "Query expansion: evaluate",
            "查询扩展：评测",
        ),
        JobKind(
            "expansion_export", ship.ExpansionExportConfig, "training.expansion_export", "cpu", "Query expansion: export", "查询扩展：导出"
        ),
        JobKind(
            "expansion_prompt",
            ship.ExpansionPromptConfig,
            "training.expansion_gepa",
            "cpu",
            "Query expansion: search a prompt",
            "查询扩展：提示词搜索",
        ),
        JobKind("calibrate", reward.CalibrateConfig, "training.calibrate", "cpu", "Calibrate the reward", "校准奖励"),
        JobKind("prompt_set", reward.PromptSetConfig, "training.prompt_set", "cpu", "Build a prompt set", "构建提示集"),
        JobKind("inspect_data", teacher.InspectDataConfig, "training.inspect_data", "cpu", "Inspect data with the teacher", "教师检查数据"),
        JobKind("import", c.ImportConfig, "training.import_data", "cpu", "Import data", "导入数据", max_attempts=1, is_startable=False),
    )
}


def job_kind(name: str) -> JobKind:
    """The kind, or NotFound("unknown_job_kind")."""
    try:
        return KINDS[name]
    except KeyError:
        raise NotFound("unknown_job_kind", kind=name, known=", ".join(KINDS)) from None
