"""The REST application under /api: routers, one error shape, and its documentation from files of our own."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from app import api as package
from app.api.access import language_of
from app.errors import describe
from core import health
from core.errors import NotFound, UserError

SWAGGER = "/assets/web/swagger"


def build() -> FastAPI:
    """The application, to be mounted under /api: every module of this package that has a `router`."""
    api = FastAPI(title="Consilium", version=health.version(), docs_url=None, redoc_url=None)
    for found in iter_modules(package.__path__):
        router = getattr(import_module(f"app.api.{found.name}"), "router", None)
        if router is not None:
            api.include_router(router)
    api.add_exception_handler(RequestValidationError, _on_bad_request)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(UserError, _on_error)
    api.add_exception_handler(Exception, _on_error)
    api.add_api_route("/docs", _docs, include_in_schema=False)
    return api


def _docs() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/api/openapi.json",
        title="Consilium API",
        swagger_js_url=f"{SWAGGER}/swagger-ui-bundle.js",
        swagger_css_url=f"{SWAGGER}/swagger-ui.css",
        swagger_favicon_url="/assets/web/icon.png",
    )


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    told = describe(error, language_of(request))
    return JSONResponse({"error": {"code": told.code, "message": told.text}}, told.status)


async def _on_bad_request(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    told = describe(UserError("bad_request", field=field, reason=first["msg"]), language_of(request))
    return JSONResponse({"error": {"code": told.code, "message": told.text}}, 422)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return await _on_error(request, NotFound("no_such_page"))
    return JSONResponse({"error": {"code": "http", "message": str(error.detail)}}, error.status_code, headers=error.headers)
