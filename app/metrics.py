"""GET /metrics: what this process answered and the state of the product, in the text form that Prometheus reads (version 0.0.4).

For whom: a caller on this machine itself (no proxy in between), a monitoring system with the token of the settings
(`metrics_token`), or a signed-in administrator. The numbers name no person and hold no text. The same rule decides who is told the
parts of /api/ready.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.guard import LOOPBACK, PERSON
from app.request_log import BUCKETS_S, Figures, figures
from core import gauges
from core.errors import Forbidden
from core.gauges import Gauge
from core.home import current_home
from core.i18n import error_text

TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: a proxy adds one of these: its caller is not on this machine although its address is
FORWARDED = ("x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-host")


def may_look(request: Request) -> bool:
    """Whether the caller may know how this installation is doing."""
    wanted, sent = current_home().settings.metrics_token, request.headers.get("authorization", "")
    if wanted and sent.lower().startswith("bearer ") and secrets.compare_digest(sent[7:].strip().encode(), wanted.encode()):
        return True
    person = request.scope.get(PERSON)
    if person is not None:
        return bool(person.role == "admin")
    is_here = request.client is not None and request.client.host in LOOPBACK and request.url.hostname in LOOPBACK
    return is_here and not any(name in request.headers for name in FORWARDED)


async def metrics(request: Request) -> Response:
    """All metrics, or 403 with the sentence."""
    if not may_look(request):
        return PlainTextResponse(error_text(Forbidden("metrics_closed"), current_home().settings.language), 403)
    state = await run_sync(gauges.read)
    return PlainTextResponse("".join(render([*state, *of_requests(figures)])), media_type=TYPE)


def of_requests(seen: Figures) -> Iterator[Gauge]:
    """This process's own counters."""
    made = tuple(
        ((("method", method), ("route", route), ("status", str(status))), float(number))
        for (route, method, status), number in sorted(seen.requests.items())
    )
    yield Gauge("consilium_requests_total", "counter", "Requests answered.", made)
    yield Gauge("consilium_sockets", "gauge", "Open websockets.", (((), seen.num_sockets),))
    yield Gauge("consilium_sockets_total", "counter", "Websockets opened.", (((), seen.num_sockets_opened),))
    histogram = []
    for route, counts in sorted(seen.buckets.items()):
        total = 0
        for bound, number in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
            total += number
            histogram.append(((("le", bound), ("route", route)), float(total)))
        histogram.append(((("", "sum"), ("route", route)), float(seen.seconds[route])))
        histogram.append(((("", "count"), ("route", route)), float(total)))
    yield Gauge("consilium_request_seconds", "histogram", "Seconds to the end of the answer.", tuple(histogram))


def render(found: Iterable[Gauge]) -> Iterator[str]:
    """Lines of the text format; a histogram's series carry `le`, or their suffix under an empty label."""
    for gauge in found:
        yield f"# HELP {gauge.name} {gauge.help}\n# TYPE {gauge.name} {gauge.kind}\n"
        for labels, value in gauge.series:
            known = dict(labels)
            suffix = known.pop("", "bucket") if gauge.kind == "histogram" else ""
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in known.items())
            yield f"{gauge.name}{f'_{suffix}' if suffix else ''}{f'{{{shown}}}' if shown else ''} {float(value):.12g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
