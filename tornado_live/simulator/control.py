"""GET and POST /control: what can be made to go wrong, and making it so in a conversation; GET /frames."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, cast

import tornado.web

from . import switches, values
from .faults import FAULTS, read_faults
from .messages import Json
from .switches import read_switches
from .values import Mistake

if TYPE_CHECKING:
    from .server import Simulator


LOOPBACK = r"localhost|127\.0\.0\.1|\[?::1\]?"


class NotOpen(Mistake):
    """The connection that a fault is to come on is not there."""


class _Local(tornado.web.RequestHandler):
    """For programs on this machine only.

    A web page of another origin cannot send what POST takes, and one whose name was made to lead here has
    another Host.
    """

    def initialize(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def prepare(self) -> None:
        request = self.request
        origin = request.headers.get("Origin")
        if not ipaddress.ip_address(str(request.remote_ip).partition("%")[0]).is_loopback:
            self._refuse(403, "This can be used from the simulator's own machine only.")
        elif re.fullmatch(LOOPBACK, request.host_name) is None:
            self._refuse(403, "This can be used at localhost, 127.0.0.1 or ::1 only.")
        elif origin is not None and origin.lower() != f"{request.protocol}://{request.host}".lower():
            self._refuse(403, "This cannot be used by a web page from elsewhere.")

    def _answer(self, body: dict[str, Json]) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(body, indent=2))

    def _refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self._answer({"error": message})


class KeptFrames(_Local):
    def get(self) -> None:
        """What crossed the wire of every connection so far, or of `?connection=` alone."""
        wanted = self.get_query_argument("connection", None)
        if not self._simulator.options.keep_frames:
            self._refuse(404, "No frames are kept; start the simulator with --keep-frames.")
            return
        self._answer(
            {
                str(number): frames.status()
                for number, frames in self._simulator.frames.items()
                if wanted in (None, str(number))
            }
        )


class Control(_Local):
    """What can be made to go wrong, and making it so."""

    def get(self) -> None:
        """Every fault and switch with its meaning, and the numbers of the open connections."""
        faults: dict[str, Json] = {
            name: {
                "takes": fault.takes,
                "acts": fault.kind.value,
                "where": fault.place.value,
                "meaning": fault.meaning,
                "evidence": fault.evidence,
            }
            for name, fault in FAULTS.items()
        }
        self._answer(
            {
                "faults": faults,
                "switches": cast("dict[str, Json]", dict(switches.MEANINGS)),
                "connections": [number for number, each in self._simulator.sockets.items() if each.is_live],
                "waiting": self._simulator.waiting_faults(),
            }
        )

    def post(self) -> None:
        """{"fault": {NAME: VALUE}, "connection": n | "all" | "next"} and {"switches": {NAME: VALUE}}."""
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            self._refuse(415, "Send JSON, with Content-Type: application/json.")
            return
        try:
            self._answer(self._carry_out(json.loads(self.request.body)))
        except Mistake as mistake:
            self._refuse(404 if isinstance(mistake, NotOpen) else 400, str(mistake))
        except ValueError:
            self._refuse(400, "The body is not JSON.")

    def _carry_out(self, body: object) -> dict[str, Json]:
        given = values.mapping(body, ("fault", "connection", "switches"))
        if "fault" not in given and "switches" not in given:
            raise Mistake("needs a fault or switches")
        where = given.get("connection")
        if not (where is None or where == "all" or where == "next" or type(where) is int):
            raise Mistake('must be the number of a connection, "all" or "next"', "connection")
        faults = read_faults(given["fault"]) if "fault" in given else []
        changed = read_switches(given.get("switches", {}))
        places: list[int | str] = []
        for fault in faults:
            places += [place for place in self._simulator.cause(fault, where) if place not in places]
        self._simulator.switches |= changed
        return {"connections": cast("list[Json]", places)}
