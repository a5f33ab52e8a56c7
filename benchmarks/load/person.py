"""A reader at the case desk without a browser: the page's own WebSocket, its protocol, its component's messages.

What a Chromium tab sends is sent here: the first run of the page, then one post of the desk's component per decision, each a
fragment run on the server. 49 such readers cost the server what 49 tabs cost it, and the machine little besides.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from benchmarks.load.site import Site

ANSWER_TIMEOUT_S = 60.0
COMPONENT = "consilium_desk"
#: Streamlit's name of the widget that carries a component's events, made from the component's own id (streamlit.components.v2, 1.67)
EVENTS = "$$STREAMLIT_INTERNAL_KEY_{component}__events"
#: how many cases of the list a reader chooses from; the list differs from reader to reader, but they do meet
CHOICE = 25


@dataclass
class Saved:
    """A decision that the server acknowledged."""

    client_id: str
    case: int
    adjudication_id: int
    stage: str


@dataclass
class Person:
    """One open tab. `seconds` holds the time from each sent decision to its acknowledgement."""

    site: Site
    username: str
    seed: int
    saved: list[Saved] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    num_refused: int = 0
    _queue: list[dict[str, Any]] = field(default_factory=list)
    _listed: Any = None
    _strings_version: str = ""
    _have: set[int] = field(default_factory=set)
    _component: str = ""
    _fragment: str = ""
    _page: str = ""

    async def open(self) -> None:
        """Connect and run the page once, as a browser that opens /desk does."""
        self.rng = random.Random(self.seed)
        address = self.site.url.replace("http", "ws") + "/_stcore/stream"
        headers = {"Cookie": self.site.readers[self.username], "Origin": self.site.url}
        self.socket = await websockets.connect(
            address, additional_headers=headers, subprotocols=[websockets.Subprotocol("streamlit")], max_size=2**25, proxy=None
        )
        await self._send(ClientState(page_name="desk"))
        await self._until(lambda data: "queue" in data)

    async def close(self) -> None:
        await self.socket.close()

    async def decide(self) -> None:
        """Claim a case, commit a blind verdict, sign it. A case that somebody else took is left to them."""
        if not self._open_cases():
            await self.post({"type": "list", "case": 0})
        open_cases = self._open_cases()[:CHOICE]
        if not open_cases:
            raise RuntimeError(f"{self.username} has no open case left")
        case = self.rng.choice(open_cases)
        self._queue = [row for row in self._queue if row["id"] != case]  # passed by, whatever becomes of it
        token = str(uuid.uuid4())
        claimed = await self.post({"type": "claim", "case": case, "lease_token": token})
        if not claimed["ok"]:
            self.num_refused += 1
            return
        form = {"verdict": "minor", "dwell_ms": 900, "confidence": "high", "who_was_right": "rules", "note": f"by {self.username}"}
        version = claimed["version"]
        for kind in ("commit", "sign"):
            sent = time.perf_counter()
            ack = await self.post({"type": kind, "case": case, "lease_token": claimed["lease_token"], "version": version, "form": form})
            if not ack["ok"]:
                raise RuntimeError(f"{self.username}: {kind} of {case} refused: {ack['text']}")
            self.seconds.append(time.perf_counter() - sent)
            version = ack["version"]
            self.saved.append(Saved(ack["id"], case, ack["adjudication_id"], kind))

    def _open_cases(self) -> list[int]:
        return [row["id"] for row in self._queue if row["status"] == "open"]

    async def post(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send one message of the desk and wait for its answer."""
        message = {"id": str(uuid.uuid4()), **message}
        view = {
            "status": "open",
            "order": "mixed",
            "language": None,
            "topic": None,
            "risk": None,
            "text": "",
            "current": message["case"],
            "have": sorted(self._have),
            "ahead": [row["id"] for row in self._queue[:4]],
            "listed": self._listed,
            "strings_version": self._strings_version,
        }
        events = json.dumps([{"event": "post", "value": {"messages": [message], "view": view}}])
        state = ClientState(page_script_hash=self._page, fragment_id=self._fragment)
        state.widget_states.widgets.append(WidgetState(id=EVENTS.format(component=self._component), json_trigger_value=events))
        await self._send(state)
        data = await self._until(lambda data: any(ack["id"] == message["id"] for ack in data.get("acks", ())))
        return next(ack for ack in data["acks"] if ack["id"] == message["id"])

    async def _send(self, state: ClientState) -> None:
        await self.socket.send(BackMsg(rerun_script=state).SerializeToString())

    async def _until(self, is_wanted: Any) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            async for raw in self.socket:
                message = ForwardMsg.FromString(raw)
                if message.WhichOneof("type") == "navigation":
                    self._page = message.navigation.page_script_hash
                data = self._data(message)
                if data is None:
                    continue
                self._queue, self._listed = data.get("queue") or self._queue, data.get("listed", self._listed)
                self._have |= {shown["id"] for shown in data.get("cases", ())}
                self._strings_version = data.get("strings_version", self._strings_version)
                if is_wanted(data):
                    return data
        raise RuntimeError(f"{self.username}: the server closed the connection")

    def _data(self, message: ForwardMsg) -> dict[str, Any] | None:
        """The desk's data in a message, if it holds any."""
        if message.WhichOneof("type") != "delta" or not message.delta.HasField("new_element"):
            return None
        element = message.delta.new_element
        if element.WhichOneof("type") == "exception":
            raise RuntimeError(element.exception.message)
        if element.WhichOneof("type") != "bidi_component" or element.bidi_component.component_name != COMPONENT:
            return None
        component = element.bidi_component
        self._component, self._fragment = component.id, message.delta.fragment_id
        data: dict[str, Any] = json.loads(component.json if component.WhichOneof("data") == "json" else component.mixed.json)
        return data
