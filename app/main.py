"""The one web process: FastAPI outside, Gradio under /arena, Streamlit everywhere else, one guard in front of all three.

Started by the launcher as `uvicorn app.main:app` with exactly one worker: Streamlit's sessions and Gradio's queue are memory
of this process. It never imports torch; models and trainings live in other processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import streamlit as st
import streamlit.config
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from app import arena, auth, metrics, oidc
from app.guard import Guard
from app.headers import SecurityHeaders
from app.index_page import IndexPage
from app.later import Later
from app.request_log import RequestLog
from core.home import current_home
from core.logs import log_as_json
from core.settings import ROOT

log_as_json("web")


def build_api() -> FastAPI:
    """The REST application with all its routers."""
    service = import_module("app.api.service")
    built: FastAPI = service.build()
    return built


screens = st.App(ROOT / "app" / "streamlit_app.py")
bench = arena.Arena()
api = Later(build_api)
screens_lifespan = screens.lifespan()  # must be taken before the first request
streamlit.config.set_option("server.maxUploadSize", current_home().settings.max_upload_mb)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Start Streamlit, then put everything imported so far beyond the garbage collector's reach.

    Streamlit collects after every run; with three frameworks on the heap that costs 100 ms a click, with a frozen heap 1 ms.
    """
    async with screens_lifespan(screens):
        gc.collect()
        gc.freeze()
        async with bench.lifespan(after=api.load):
            yield


async def front_page(_request: Request) -> RedirectResponse:
    """/home is a name for /: Streamlit's default page has the empty path."""
    return RedirectResponse("/", status_code=307)


app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, routes=[*auth.ROUTES, *oidc.ROUTES], lifespan=lifespan)
app.add_middleware(CORSMiddleware, allow_origins=[])  # its presence stops Gradio from allowing every origin
app.add_middleware(Guard)
app.add_middleware(SecurityHeaders)
app.add_middleware(RequestLog)
app.add_route("/home", front_page)
app.add_route("/metrics", metrics.metrics)
app.mount("/assets/web", StaticFiles(directory=ROOT / "assets" / "web"))
app.mount("/api", api)
app.mount(arena.PATH, bench)
app.mount("/", IndexPage(screens))
