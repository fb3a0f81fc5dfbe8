"""What both directions share: lines of bounded length cut from a stream, records, the error of a broken protocol."""

from ..errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional, Tuple

SCHEMA_VERSION = "1"


class ProtocolError(BuildError):
    """The other side broke the protocol."""

    kind = "protocol"


class Record:
    """What requests and events have in common: equal when their fields are, and shown with them."""

    __slots__: "Tuple[str, ...]" = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ("%s=%r" % (name, getattr(self, name)) for name in self.__slots__)
        return "%s(%s)" % (type(self).__name__, ", ".join(fields))


class Lines:
    """Cuts a stream of bytes into lines of at most `limit` bytes; a longer one comes out as None."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def pending(self) -> bool:
        return bool(self._buffer.strip())

    def __iter__(self) -> "Iterator[Optional[bytes]]":
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned > self._limit:
                    del self._buffer[:]
                    self._scanned = 0
                    if not self._skipping:
                        self._skipping = True
                        yield None
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            if self._skipping:
                self._skipping = False
            elif end > self._limit:
                yield None
            else:
                yield line
