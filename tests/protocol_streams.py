"""Streams of the wire protocol, cut into pieces and read: what the tests of requests and events share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Union

from hypothesis import strategies as st

from buildcore.core.protocol import requests
from buildcore.core.protocol.events import EventReader, Exit, Output
from buildcore.core.protocol.requests import Cancel, Request, RequestReader

Event = Union[Request, Cancel, Output, Exit]
Reader = Union[RequestReader, EventReader]

MINIMAL = {"command": "make", "cwd": "/home/dev1/workspace"}

CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\udc80\udcff")
TEXT = st.text(CHARACTER)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=requests.MAX_REQUEST_ID_CHARS)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def line(**fields: Any) -> bytes:
    """A request with these fields besides the two that every request has."""
    return json.dumps({**MINIMAL, **fields}).encode() + b"\n"


def taken(reader: Reader, pieces: Iterable[bytes]) -> list[Event]:
    """Everything that a reader makes of the pieces of a stream."""
    events: list[Event] = []
    for piece in pieces:
        reader.receive_data(piece)
        while (event := reader.next_event()) is not None:
            events.append(event)
    return events


def requests_in(*pieces: bytes) -> list[Event]:
    return taken(RequestReader(), pieces)


def events_in(*pieces: bytes) -> list[Event]:
    return taken(EventReader(), pieces)


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """The pieces of `data` between the offsets `at`."""
    bounds = [0, *sorted(offset % (len(data) + 1) for offset in at), len(data)]
    return [data[start:stop] for start, stop in zip(bounds, bounds[1:])]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]
