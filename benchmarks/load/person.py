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
    _in_hand: tuple[int, str, int] | None = None
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
        """Commit a blind verdict, together with the claim on the next case; sign. A case that somebody else took is left to them."""
        if self._in_hand is None:
            await self._claim_one()
        case, token, version = self._in_hand or (0, "", 0)
        form = {"verdict": "minor", "dwell_ms": 900, "confidence": "high", "who_was_right": "rules", "note": f"by {self.username}"}
        wanted, *others = [*self._open_cases()[:8], None]
        own_token = str(uuid.uuid4())
        commit = {"type": "commit", "case": case, "lease_token": token, "version": version, "form": form}
        ahead = {"type": "claim", "case": wanted, "lease_token": own_token, "others": [one for one in others if one is not None]}
        committed, *claimed = await self._decision(commit, *([ahead] if wanted is not None else []))
        self._in_hand = None
        if claimed and claimed[0]["ok"]:
            self._take(claimed[0])
        if claimed and (not claimed[0]["ok"] or claimed[0]["case"] != wanted):
            self._pass_by(wanted)
        await self._decision({**commit, "type": "sign", "version": committed["version"]})

    async def _decision(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a decision and what goes with it; time it and keep its receipt."""
        sent = time.perf_counter()
        acks = await self.post(*messages)
        if not acks[0]["ok"]:
            raise RuntimeError(f"{self.username}: {messages[0]['type']} of {messages[0]['case']} refused: {acks[0]['text']}")
        self.seconds.append(time.perf_counter() - sent)
        self.saved.append(Saved(acks[0]["id"], acks[0]["case"], acks[0]["adjudication_id"], messages[0]["type"]))
        return acks

    async def _claim_one(self) -> None:
        while self._in_hand is None:
            if not self._open_cases():
                await self.post({"type": "list", "case": 0})
            case = next(iter(self._open_cases()), None)
            if case is None:
                raise RuntimeError(f"{self.username} has no open case left")
            (claimed,) = await self.post({"type": "claim", "case": case, "lease_token": str(uuid.uuid4())})
            if claimed["ok"]:
                self._take(claimed)
            else:
                self._pass_by(case)

    def _take(self, claimed: dict[str, Any]) -> None:
        self._in_hand = claimed["case"], claimed["lease_token"], claimed["version"]
        self._queue = [row for row in self._queue if row["id"] != claimed["case"]]

    def _pass_by(self, case: int | None) -> None:
        self.num_refused += 1
        self._queue = [row for row in self._queue if row["id"] != case]

    def _open_cases(self) -> list[int]:
        """Free cases of the list, in its order, as the desk goes through them."""
        return [row["id"] for row in self._queue if row["status"] == "open" and not row["holder"] and not row["is_mine"]]

    async def post(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Send messages of the desk as one list and wait for their answers."""
        sent = [{"id": str(uuid.uuid4()), **message} for message in messages]
        view = {
            "status": "open",
            "order": "mixed",
            "language": None,
            "topic": None,
            "risk": None,
            "text": "",
            "current": messages[0]["case"],
            "have": sorted(self._have),
            "ahead": self._open_cases()[:4],
            "listed": self._listed,
            "strings_version": self._strings_version,
        }
        events = json.dumps([{"event": "post", "value": {"messages": sent, "view": view}}])
        state = ClientState(page_script_hash=self._page, fragment_id=self._fragment)
        state.widget_states.widgets.append(WidgetState(id=EVENTS.format(component=self._component), json_trigger_value=events))
        await self._send(state)
        wanted = {message["id"] for message in sent}
        data = await self._until(lambda data: wanted <= {ack["id"] for ack in data.get("acks", ())})
        return [ack for message in sent for ack in data["acks"] if ack["id"] == message["id"]]

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
