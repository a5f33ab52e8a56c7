"""Every setting, once: name, default, help in both languages. Environment beats `consilium.toml` beats default.

The Settings page, `./run.sh settings` and the documentation are drawn from this table; secrets are masked there.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "CONSILIUM_"
#: postgresql://user:PASSWORD@host/...
_URL_PASSWORD = re.compile(r"(://[^/:@]*:)[^/]*@")


def setting(default: Any, en: str, zh: str, *, secret: bool = False, **limits: Any) -> Any:
    """A field of `Settings`: its default, what it does in both languages, and whether it must never be shown."""
    return Field(default=default, description=en, json_schema_extra={"zh": zh, "secret": secret}, **limits)


class Settings(BaseModel):
    """Read-only after loading. Environment variables are CONSILIUM_ plus the upper-case field name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = setting(ROOT / "data", "Folder that holds all state.", "保存全部数据的目录。")
    database_url: str = setting(
        "",
        "postgresql://... (see docs/postgresql.md); empty means SQLite in the home folder.",
        "数据库地址，如 postgresql://…（见 docs/postgresql.md）；留空表示使用主目录中的 SQLite。",
    )
    host: str = setting("127.0.0.1", "Address the web server listens on.", "网页服务监听的地址。")
    port: int = setting(8765, "Port of the web server.", "网页服务端口。", ge=0, le=65535)
    model_server_port: int = setting(8766, "Loopback port of the local model server.", "本机模型服务端口。", ge=0, le=65535)
    language: str = setting("zh", "Language before a person has chosen one: zh or en.", "默认界面语言：zh 或 en。", pattern="^(zh|en)$")
    allowed_hosts: list[str] = setting([], "Extra host names under which the site is reached.", "允许访问本站的其他主机名。")
    session_idle_minutes: int = setting(480, "A sign-in ends after this long without use.", "登录闲置多久后失效（分钟）。", ge=1)
    session_days: int = setting(7, "A sign-in ends after this long in any case.", "登录最长有效天数。", ge=1)
    secure_cookies: bool = setting(False, "Send cookies over TLS only (behind a TLS proxy).", "仅通过 TLS 发送 Cookie。")
    trusted_proxies: list[str] = setting(
        [],
        "Addresses or networks of reverse proxies whose X-Forwarded-For and -Proto count; none by default (docs/security.md).",
        "可信反向代理的地址或网段，仅采信来自它们的 X-Forwarded-For 与 X-Forwarded-Proto；默认不采信（见 docs/security.md）。",
    )
    public_url: str = setting(
        "",
        "Address under which people reach this site, such as https://consilium.hospital.example; needed for sign-in by OpenID Connect.",
        "用户访问本站的地址，例如 https://consilium.hospital.example；使用 OpenID Connect 登录时必填。",
    )
    oidc_issuer: str = setting(
        "",
        "Issuer of an OpenID Connect provider; empty means that people sign in here with a password only.",
        "OpenID Connect 身份提供方的 issuer 地址；留空则仅使用本站密码登录。",
    )
    oidc_client_id: str = setting("", "Client id at the provider.", "在身份提供方登记的客户端 ID。")
    oidc_client_secret: str = setting(
        "", "Client secret at the provider; empty for a public client.", "客户端密钥；公共客户端留空。", secret=True
    )
    oidc_name: str = setting("", "What the sign-in button calls the provider.", "登录按钮上显示的身份提供方名称。")
    oidc_email_domains: list[str] = setting(
        [],
        "E-mail domains whose verified addresses may find their account at the first sign-in; none means that nobody is found by e-mail.",
        "首次登录时允许凭已验证邮箱匹配账号的邮箱域名；留空则不按邮箱匹配。",
    )
    oidc_role_claim: str = setting(
        "",
        "Claim that names a person's groups; empty means that roles are given here only.",
        "表示用户组的声明名称；留空则角色只在本站设置。",
    )
    oidc_role_map: list[str] = setting(
        [],
        "Which group gets which role, as group=role; the first that fits counts.",
        "用户组与角色的对应关系，格式为 组=角色；以第一个匹配项为准。",
    )
    desk_signing_minutes: int = setting(
        720,
        "Verdicts are signed within a sign-in whose password was typed at most this long ago.",
        "裁决签名要求在本次登录中输入密码后的此时间内完成（分钟）。",
        ge=1,
    )
    anchor_copy: str = setting(
        "",
        "A second folder for the daily anchors of the audit chain, best on another machine or a write-once store.",
        "审计链每日锚点的第二存放目录，最好位于其他机器或只写一次的存储上。",
    )
    signing_password_minutes: int = setting(
        0,
        "Signing a promotion, a roll-back or a reward asks for the password unless it was typed this recently; 0 asks every time.",
        "签署上线、回退或奖励配置时，若距上次输入密码超过此时间则需重新输入；0 表示每次都要输入（分钟）。",
        ge=0,
    )
    max_upload_mb: int = setting(200, "Largest file that may be imported, in MB.", "可导入文件的最大体积（MB）。", ge=1)
    num_cpu_slots: int = setting(1, "CPU jobs that may run at once.", "可同时运行的 CPU 任务数。", ge=1, le=64)
    launcher: str = setting(
        "local",
        "Where jobs run: local (this machine), or through a cluster's queue: slurm, ray (Ray Jobs), sky (SkyPilot); see docs/scaling.md.",
        "任务在哪里运行：local（本机），或提交到集群：slurm、ray（Ray Jobs）、sky（SkyPilot），见 docs/scaling.md。",
        pattern="^(local|slurm|ray|sky)$",
    )
    slurm_partition: str = setting("", "Slurm partition; empty means the cluster's default.", "Slurm 分区；留空使用集群默认分区。")
    slurm_gres: str = setting(
        "gpu:{n}",
        "What a GPU job asks Slurm for; {n} is its number of processes; none asks for nothing.",
        "GPU 任务向 Slurm 申请的资源；{n} 为进程数；none 表示不申请。",
    )
    slurm_options: str = setting(
        "",
        "Further options of sbatch, as on its command line (account, time limit ...).",
        "其他 sbatch 选项，写法与命令行相同（账户、时限等）。",
    )
    slurm_jobs: int = setting(
        4,
        "GPU jobs that may be with Slurm at once, waiting or running.",
        "可同时提交到 Slurm 的 GPU 任务数（排队与运行合计）。",
        ge=1,
        le=256,
    )
    ray_address: str = setting(
        "", "Address of Ray's dashboard (http://head:8265).", "Ray 控制台地址（http://主节点:8265）。", pattern="^$|^https?://"
    )
    ray_token: str = setting("", "Token that Ray's dashboard asks for, if any.", "Ray 控制台要求的令牌（如有）。", secret=True)
    ray_cpus: float = setting(1.0, "CPUs that a job asks Ray for.", "每个任务向 Ray 申请的 CPU 数。", gt=0)
    ray_jobs: int = setting(
        4, "GPU jobs that may be with Ray at once, waiting or running.", "可同时提交到 Ray 的 GPU 任务数（排队与运行合计）。", ge=1, le=256
    )
    sky_command: str = setting(
        "sky", "SkyPilot's command, with its path where it is not on PATH.", "SkyPilot 命令（不在 PATH 时写完整路径）。"
    )
    sky_task: str = setting(
        "",
        'More of SkyPilot\'s task file as JSON, {n} being the number of processes: {"resources": {"accelerators": "H100:{n}"}}.',
        'SkyPilot 任务文件的其他字段（JSON），{n} 为进程数，例如 {"resources": {"accelerators": "H100:{n}"}}。',
    )
    sky_options: str = setting(
        "", "Further options of `sky jobs launch`, as on its command line.", "`sky jobs launch` 的其他选项，写法与命令行相同。"
    )
    sky_jobs: int = setting(
        4,
        "GPU jobs that may be with SkyPilot at once, waiting or running.",
        "可同时提交到 SkyPilot 的 GPU 任务数（排队与运行合计）。",
        ge=1,
        le=256,
    )
    num_threads: int = setting(0, "Threads for a training process; 0 means all cores.", "训练进程线程数；0 表示使用全部核心。", ge=0)
    harm_max_regression_rate: float = setting(
        0.05,
        "Promotion needs so many cases with a danger sign that the 95 % upper bound of what may be lost is below this rate.",
        "上线要求：含危险信号的病例数须足以使丢失率的 95% 上界低于该值。",
        gt=0,
        lt=1,
    )
    kl_warn_nats: float = setting(
        10.0,
        "KL of an RL version to its reference that is pointed out (nats per sequence).",
        "RL 版本相对参考模型的 KL 警示值（每序列 nats）。",
        gt=0,
    )
    kl_stop_nats: float = setting(
        20.0,
        "KL of an RL version to its reference beyond which it is not promoted.",
        "RL 版本相对参考模型的 KL 上限，超过则不予上线（每序列 nats）。",
        gt=0,
    )
    job_lease_s: float = setting(
        30.0, "A running job without heartbeat for this long is taken over.", "任务心跳中断多久后被接管（秒）。", gt=0
    )
    case_lease_minutes: float = setting(
        10.0, "A claimed case returns to the queue after this long without heartbeat.", "病例认领租约时长（分钟）。", gt=0
    )
    machine: str = setting(
        "",
        "Name of this machine among those that share a PostgreSQL queue; empty uses its host name.",
        "共用 PostgreSQL 队列时本机的名称；留空使用主机名。",
        max_length=100,
    )
    device: str = setting("auto", "Where models run: auto, cpu, cuda, cuda:0 ...", "模型运行设备：auto、cpu、cuda 等。")
    serve_model: str = setting("", "Model version to answer with when none is serving.", "没有在服务的版本时使用的模型。")
    teacher_base_url: str = setting(
        "", "OpenAI-compatible teacher endpoint; empty means the offline teacher.", "教师模型接口地址；留空则使用离线教师。"
    )
    teacher_model: str = setting("deepseek-chat", "Model name sent to the teacher endpoint.", "教师模型名称。")
    teacher_api_key: str = setting("", "Key for the teacher endpoint.", "教师模型接口密钥。", secret=True)
    teacher_timeout_s: float = setting(60.0, "Longest wait for one judgement, in seconds.", "单条评判的最长等待时间（秒）。", gt=0)
    teacher_num_at_once: int = setting(8, "Requests open at the teacher endpoint at once.", "同时向教师接口发送的请求数。", ge=1, le=256)
    teacher_requests_per_minute: float = setting(
        0.0, "Requests per minute to the teacher endpoint; 0 means no limit.", "每分钟发往教师接口的请求数上限；0 表示不限。", ge=0
    )
    teacher_tokens_per_minute: float = setting(
        0.0, "Tokens per minute to the teacher endpoint; 0 means no limit.", "每分钟发往教师接口的词元数上限；0 表示不限。", ge=0
    )
    teacher_max_output_tokens: int = setting(1200, "Longest verdict in tokens.", "单条评判的最大词元数。", ge=64)
    teacher_job_budget_usd: float = setting(
        0.0, "Most that one job may spend on the teacher, in USD; 0 means no limit.", "单个任务的教师费用上限（美元）；0 表示不限。", ge=0
    )
    teacher_month_budget_usd: float = setting(
        0.0, "Most that may be spent on the teacher in a calendar month (UTC), in USD; 0 means no limit.",
        "每个自然月（UTC）的教师费用上限（美元）；0 表示不限。", ge=0,
    )  # fmt: skip
    teacher_audit_share: float = setting(
        0.02,
        "Share of judgements that are scored a second time to see how steady the teacher is.",
        "抽取重复评判以检验教师一致性的比例。",
        ge=0,
        le=1,
    )
    teacher_log_text: bool = setting(
        False,
        "Write questions and answers (redacted) into the teacher log instead of their hashes.",
        "在教师日志中记录脱敏后的问答原文，而非哈希值。",
    )
    milvus_url: str = setting(
        "",
        "Milvus server that indexes can be moved to (http://host:19530); empty means none (docs/scaling.md).",
        "可迁移索引的 Milvus 服务地址（http://主机:19530）；留空表示不使用（见 docs/scaling.md）。",
        pattern="^$|^https?://",
    )
    milvus_key: str = setting("", "Token for Milvus, or user:password.", "Milvus 令牌，或 用户:密码。", secret=True)
    opensearch_url: str = setting(
        "",
        "OpenSearch that indexes can be moved to (https://host:9200); empty means none (docs/scaling.md).",
        "可迁移索引的 OpenSearch 地址（https://主机:9200）；留空表示不使用（见 docs/scaling.md）。",
        pattern="^$|^https?://",
    )
    opensearch_key: str = setting("", "user:password for OpenSearch, or a token.", "OpenSearch 的 用户:密码，或令牌。", secret=True)
    engine_timeout_s: float = setting(
        2.0,
        "Longest wait for a search engine before the own index answers, in seconds.",
        "等待外部检索引擎的最长时间（秒），超时后由本机索引回答。",
        gt=0,
    )
    ask_budget_ms: int = setting(
        300, "Time allowed for rewriting a question before search goes on without it.", "提问改写的时间预算（毫秒）。", ge=0
    )
    gguf_converter: str = setting(
        "",
        "llama.cpp's converter for GGUF export: a folder of llama.cpp or the llama-cpp-python source package; empty uses the one fetched.",
        "GGUF 导出所用的 llama.cpp 转换器：llama.cpp 目录或 llama-cpp-python 源码包；留空使用已下载的转换器。",
    )
    llama_python: str = setting(
        "",
        "A Python in which llama-cpp-python is built, for K-quants and for comparing exported files (docs/expansion_export.md).",
        "已编译 llama-cpp-python 的 Python 路径，用于 K 量化与导出文件的比对（见 docs/expansion_export.md）。",
    )
    metrics_token: str = setting(
        "",
        "Bearer token with which a monitoring system on another machine may read /metrics; from this machine none is needed.",
        "其他机器上的监控系统读取 /metrics 所需的令牌；本机访问无需令牌。",
        secret=True,
    )
    model_server_token: str = setting(
        "", "Shared token between web and model server; made at first start when empty.", "网页与模型服务之间的令牌。", secret=True
    )

    model_server_rows: int = setting(16, "Answers the model server writes at once.", "模型服务同时生成的回答数。", ge=1, le=256)
    model_server_waiting: int = setting(64, "Requests that may wait before more are refused.", "模型服务最多排队的请求数。", ge=1)
    model_server_threads: int = setting(
        1, "CPU threads of the model server; few, so that training keeps the cores.", "模型服务使用的 CPU 线程数。", ge=1
    )
    model_server_idle_minutes: float = setting(
        30.0, "The model server frees its memory after this long without a request.", "模型服务闲置多久后释放内存（分钟）。", gt=0
    )
    model_server_yields: str = setting(
        "auto",
        "Whether the model leaves memory while a GPU job runs: auto (only on a GPU), always, never.",
        "GPU 任务运行时模型是否让出内存：auto（仅在 GPU 上）、always、never。",
        pattern="^(auto|always|never)$",
    )

    @property
    def url(self) -> str:
        """The database URL in force; PostgreSQL is spoken to through psycopg, however its URL begins."""
        scheme, mark, rest = self.database_url.partition("://")
        scheme = "postgresql+psycopg" if scheme in ("postgres", "postgresql") else scheme
        return f"{scheme}{mark}{rest}" or f"sqlite:///{self.home / 'consilium.db'}"


#: settings that hold several values; separated by commas in the environment
LISTS = frozenset(name for name, info in Settings.model_fields.items() if info.annotation == list[str])


def load_settings(environ: dict[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read the table. `consilium.toml` is looked for in the home folder, then beside run.sh.

    Raises UserError("bad_setting") naming the setting and what is wrong with it.
    """
    env = dict(os.environ if environ is None else environ)
    stood = Path(env.get(PREFIX + "CALLED_FROM") or ".")  # run.sh changes to its own folder; people type paths from theirs
    home = stood / Path(env.get(PREFIX + "HOME", "") or Settings.model_fields["home"].default).expanduser()
    values: dict[str, Any] = {}
    for candidate in [file] if file else [home / "consilium.toml", ROOT / "consilium.toml"]:
        if candidate and candidate.is_file():
            try:
                values = tomllib.loads(candidate.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UserError("bad_settings_file", path=candidate, reason=error) from error
            break
    for name in Settings.model_fields:
        raw = env.get(PREFIX + name.upper())
        if raw is not None and raw != "":
            values[name] = [h.strip() for h in raw.split(",") if h.strip()] if name in LISTS else raw
    values["home"] = (stood / Path(values.get("home", home)).expanduser()).absolute()
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError("bad_setting", name=".".join(map(str, first["loc"])), reason=first["msg"]) from error


def describe(settings: Settings) -> list[dict[str, str]]:
    """One row per setting for people: name, environment variable, value in force (masked if secret), default, help."""
    rows = []
    for name, info in Settings.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        value = getattr(settings, name)
        shown = ("••••" if value else "") if extra.get("secret") else _URL_PASSWORD.sub(r"\1••••@", str(value))
        rows.append(
            {
                "name": name,
                "variable": PREFIX + name.upper(),
                "value": shown,
                "default": "" if extra.get("secret") else str(info.default),
                "en": info.description or "",
                "zh": str(extra.get("zh", "")),
            }
        )
    return rows
