"""The REST application under /api: routers, one error shape, and its documentation from files of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app import api as package
from app.api.access import language_of
from app.errors import describe
from core import health
from core.errors import NotFound, UserError

SWAGGER = "/assets/web/swagger"
#: every way in which a request is refused, all of one shape
REFUSALS = {
    400: "What was sent cannot be used; the sentence says what and how to mend it",
    401: "Not signed in",
    403: "Not for this role, or from another site",
    404: "No such thing",
    409: "Somebody else was first, or it is taken",
    413: "Too large",
    422: "A field is missing or of the wrong type",
    503: "Not now: a part of the product does not answer",
}


class RefusalSaid(BaseModel):
    """A code for programs and a sentence for people, in the caller's language."""

    code: str
    message: str


class Refusal(BaseModel):
    """What every refusal looks like."""

    error: RefusalSaid


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
    api.openapi = partial(_document, api, api.openapi)  # type: ignore[method-assign]
    return api


def _document(api: FastAPI, drawn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document with every refusal named: FastAPI draws the wanted answers only, and a 422 that is not ours."""
    if api.openapi_schema is None or "Refusal" not in api.openapi_schema["components"]["schemas"]:
        found = drawn()
        schemas = found["components"]["schemas"]
        made = Refusal.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(made.pop("$defs"), Refusal=made)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
        for operation in (one for path in found["paths"].values() for one in path.values()):
            told = {str(status): {"description": text, "content": shape} for status, text in REFUSALS.items()}
            kept = {status: answer for status, answer in operation["responses"].items() if status != "422"}
            operation["responses"] = {**told, **kept}
    return api.openapi_schema or drawn()


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
