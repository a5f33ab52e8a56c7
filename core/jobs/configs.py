"""The config of every job kind: one pydantic model each, every field with default, limits and help in both languages.

The Jobs page's forms, `./run.sh train KIND --help` and the config.json of a run are all drawn from these. Names of model
versions, datasets and indexes are resolved when the job runs, so a chain can be queued before its parts exist.
"""

from __future__ import annotations

from typing import Literal

from core.jobs import fields as f
from core.jobs.fields import JobConfig as JobConfig
from core.jobs.fields import option as option


class DemoBaseConfig(JobConfig):
    """Train the toy base model and its tokenizer from scratch on the demo world, and load the demo prompts."""

    name: str = option("demo-base", "Name of the model version to make.", "生成的模型版本名称。")
    dataset: str = option("demo", "Name of the demo dataset to load.", "演示数据集名称。")
    seed: int = option(0, "Seed of weights, data order and sampling.", "随机种子。", ge=0)
    hidden_size: int = option(192, "Width of the model.", "模型宽度。", advanced=True, ge=16, multiple_of=16)
    num_layers: int = option(2, "Number of layers.", "层数。", advanced=True, ge=1)
    vocab_size: int = option(
        900,
        "Learned tokens of the tokenizer; the world's phrases come on top.",
        "分词器学习的词元数（短语词元另计）。",
        advanced=True,
        ge=300,
    )
    num_documents: int = option(5000, "Plain texts to pretrain on.", "预训练文本数量。", advanced=True, ge=16)
    num_chats: int = option(2200, "Imperfect chat answers to pretrain on.", "预训练对话数量。", advanced=True, ge=1)
    num_epochs: float = option(1.0, "Passes over the texts.", "训练轮数。", advanced=True, gt=0)
    init_std: float = option(0.08, "Standard deviation of the initial weights.", "初始权重标准差。", advanced=True, gt=0)
    learning_rate: float = option(3e-3, "Peak learning rate.", "最大学习率。", advanced=True, gt=0)
    tokens_per_batch: int = option(512, "Tokens per update.", "每次更新的词元数。", advanced=True, ge=32)


class SampleConfig(JobConfig):
    """Let a model version answer the prompts of a dataset."""

    model: str = option(..., "Model version that answers.", "回答问题的模型版本。", min_length=1)
    dataset: str = option("demo", "Dataset whose prompts are answered.", "使用的数据集。")
    split: Literal["train", "dev", "test", "gold", "red_team"] = option("dev", "Split whose prompts are answered.", "使用的数据划分。")
    num_samples: int = option(96, "At most this many prompts; 0 means all.", "最多回答多少条；0 表示全部。", ge=0)
    temperature: float = option(1.0, "Sampling temperature; 0 is greedy.", "采样温度；0 为贪心。", ge=0, le=2)
    max_new_tokens: int = option(160, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    batch_size: int = option(32, "Prompts answered at once.", "批大小。", advanced=True, ge=1)
    seed: int = option(0, "Seed of sampling and of the choice of prompts.", "随机种子。", ge=0)


class ScoreConfig(JobConfig):
    """Score completions by rules and by the teacher."""

    dataset: str = option("demo", "Dataset whose completions are scored.", "使用的数据集。")
    model: str = option("", "Only completions of this model version; empty means all.", "只评分该版本的回答；留空表示全部。")
    with_teacher: bool = option(True, "Ask the teacher too.", "同时请教师模型评分。")
    rescore: bool = option(False, "Score again what has a score of this lexicon and rubric version.", "对已评分的回答重新评分。")


class ConflictsConfig(JobConfig):
    """Find completions on which the teacher and the rules disagree and put them on the desk."""

    dataset: str = option("demo", "Dataset whose completions are examined.", "使用的数据集。")
    threshold: float | None = option(
        None, "Gap that makes a conflict; empty means the reward config's.", "判定冲突的差距；留空使用奖励配置。", ge=0, le=1
    )
    num_controls: int = option(8, "Random cases without a conflict to add as controls.", "加入的随机对照病例数。", ge=0)
    seed: int = option(0, "Seed of the choice of controls.", "随机种子。", ge=0)


class PPOConfig(JobConfig):
    """RLAIF-PPO from an SFT adapter: reward by rules, teacher and the clinicians' reward config; KL to the frozen SFT."""

    name: str = option(
        "",
        "Name of the model version to make; empty means rl-roundN with the next free number.",
        "生成的模型版本名称；留空则为 rl-roundN（下一个空闲序号）。",
    )
    sft_model: str = option("demo-sft", "SFT version: start and frozen reference.", "SFT 版本：起点与冻结参考。")
    dataset: str = option("demo", "Dataset or prompt set whose train prompts are used.", "使用的数据集或提示集（训练集提示）。")
    num_rollouts: int = option(24, "Rollout and update rounds.", "采样与更新的轮数。", ge=1)
    num_prompt_epochs: int = option(
        0,
        "Passes over all prompts; when above 0 the number of rollouts follows from it.",
        "遍历全部提示的次数；大于 0 时由它决定采样轮数。",
        ge=0,
    )
    rollout_batch_size: int = option(64, "Completions per rollout, all processes together.", "每轮采样的回答数（所有进程合计）。", ge=1)
    num_ppo_epochs: int = option(3, "Passes over each rollout.", "每轮数据的训练遍数。", ge=1)
    mini_batch_size: int = option(32, "Samples per update, all processes together.", "每次更新的样本数（所有进程合计）。", ge=1)
    learning_rate: float = option(2e-3, "Learning rate of adapter and value head.", "学习率。", gt=0)
    kl_coef: float = option(0.03, "Start of the adaptive KL coefficient.", "KL 系数初值。", ge=0)
    target_kl: float = option(6.0, "KL to the reference aimed at, in nats per sequence.", "目标 KL（每序列 nats）。", gt=0)
    max_new_tokens: int = option(160, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    temperature: float = option(1.0, "Sampling temperature during rollouts.", "采样温度。", advanced=True, gt=0)
    gamma: float = option(1.0, "Discount.", "折扣因子。", advanced=True, gt=0, le=1)
    lam: float = option(1.0, "GAE lambda of the policy's advantages.", "策略优势的 GAE λ。", advanced=True, ge=0, le=1)
    lam_critic: float = option(1.0, "GAE lambda of the critic's returns.", "价值回报的 GAE λ。", advanced=True, ge=0, le=1)
    cliprange: float = option(0.2, "Policy clip range.", "策略裁剪范围。", advanced=True, gt=0)
    cliprange_value: float = option(0.2, "Value clip range.", "价值裁剪范围。", advanced=True, gt=0)
    vf_coef: float = option(0.1, "Weight of the value loss.", "价值损失权重。", advanced=True, ge=0)
    kl_horizon: int = option(
        256, "Samples over which the KL coefficient adapts; smaller is faster.", "KL 系数自适应的样本跨度；越小越快。", advanced=True, ge=1
    )
    max_step_kl: float = option(
        0.05,
        "A rollout's updates end when old and new policy differ by 1.5 times this per token (nats).",
        "新旧策略每词元 KL 超过该值 1.5 倍时结束本轮更新（nats）。",
        advanced=True,
        gt=0,
    )
    failure_score: float = f.failure_score()
    eos_penalty: float = option(
        0.0,
        "Taken off the score of an answer that never ends, beside the failure score.",
        "未结束回答在固定得分之外的扣分。",
        advanced=True,
        ge=0,
    )
    overlong_buffer: int = option(
        0,
        "An answer within this many tokens of the limit loses a growing part of the penalty below; 0 switches it off.",
        "距长度上限不足该词元数时按比例扣分；0 表示关闭。",
        advanced=True,
        ge=0,
    )
    overlong_penalty: float = option(
        0.5, "Taken off the score of an answer that reaches the limit.", "达到长度上限的回答所扣分数。", advanced=True, ge=0
    )
    scale_scores: bool = option(False, "Divide scores by their running standard deviation.", "用得分的累计标准差缩放得分。", advanced=True)
    critic: Literal["ridge", "gradient"] = option(
        "ridge",
        "How the value head learns: fitted in closed form after every rollout, or by gradient steps with the policy.",
        "价值头的学习方式：每轮后闭式岭回归拟合，或与策略一起梯度更新。",
        advanced=True,
    )
    update_share: float = option(
        1.0,
        "Share of a rollout's answers that are learnt from: those with the largest advantages; the rest hardly change anything.",
        "每轮中用于学习的回答占比：取优势绝对值最大的部分，其余几乎不影响更新。",
        advanced=True,
        gt=0,
        le=1,
    )
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.", "梯度裁剪的范数上限。", advanced=True, gt=0)
    max_trained_share: float = option(
        0.05,
        "Refuse to train a larger share of a real model's parameters than this.",
        "真实模型可训练参数占比的上限，超过则拒绝训练。",
        advanced=True,
        gt=0,
        le=1,
    )
    micro_batch_tokens: int = option(
        0,
        "Padded tokens per forward pass; 0 chooses by device. Never changes the result.",
        "每次前向的词元数；0 按设备选择，不影响结果。",
        advanced=True,
        ge=0,
    )
    old_logprobs: Literal["auto", "sampler", "forward"] = option(
        "auto",
        "Where old log-probabilities come from: the sampler, or one more forward pass; auto takes the sampler's for float32 models.",
        "旧策略对数概率的来源：采样器，或再做一次前向；auto 在 float32 模型上使用采样器的值。",
        advanced=True,
    )
    sample_batch_size: int = option(
        0, "Rows generated together; 0 means the whole rollout.", "同时生成的行数；0 表示整轮。", advanced=True, ge=0
    )
    max_unscored: float = f.max_unscored()
    teacher_wait_minutes: float = f.teacher_wait_minutes()
    rollout_engine: Literal["transformers", "vllm"] = option(
        "transformers",
        "What samples the rollouts; vllm needs a GPU and the vllm package.",
        "采样引擎；vllm 需要 GPU 与 vllm 包。",
        advanced=True,
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    num_processes: int = f.num_processes()
    decay: bool = option(True, "Lower the learning rate linearly to a fifth.", "学习率线性降至五分之一。", advanced=True)
    save_steps: int = option(4, "Write a checkpoint every N rollouts.", "每 N 轮保存检查点。", advanced=True, ge=1)
    sample_steps: int = option(4, "Write a table of samples every N rollouts.", "每 N 轮写出样本表。", advanced=True, ge=1)
    seed: int = option(0, "Seed of sampling, data order and value head.", "随机种子。", ge=0)


class ImportConfig(JobConfig):
    """Import an uploaded file as a dataset."""

    path: str = option(..., "File to import (in the uploads folder or given on the command line).", "要导入的文件。", min_length=1)
    dataset: str = option(..., "Name of the dataset to make.", "数据集名称。", min_length=1)
    mapping: dict[str, str] = option(
        {}, "Our field -> column of the file; empty means recognised by name.", "字段到列名的映射；留空自动识别。"
    )
    kind: str = option(
        "",
        "prompts, completions, messages, preferences, gold, red_team, judgements, conflicts; empty means recognised.",
        "数据类型；留空自动识别。",
    )
    encoding: str = option("", "Text encoding; empty means recognised.", "文本编码；留空自动识别。")
    source: str = option("", "Where the data come from.", "数据来源。")
    licence: str = option("", "Licence of the data.", "数据许可证。")
    split: str = option(
        "", "Put all rows in this split; empty means a deterministic stratified split.", "全部放入该划分；留空自动分层划分。"
    )
    seed: int = option(0, "Seed of the split.", "划分随机种子。", ge=0)
