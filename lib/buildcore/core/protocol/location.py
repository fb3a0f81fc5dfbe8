"""Where a caller's directory is to its kernel, as a request tells it."""

from ..mounts import Mount
from .lines import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional


class Location(Record):
    """A directory's `device` ("major:minor") and `inode` (decimal digits), of stat(2), and the `mount` that it lies in.

    Numbers of 64 bits are text here, as JSON's often are not whole beyond 2**53.
    """

    __slots__ = ("device", "inode", "mount")

    def __init__(self, device: str, inode: str, mount: "Optional[Mount]" = None) -> None:
        self.device = device
        self.inode = inode
        self.mount = mount

    def fields(self) -> "Dict[str, Any]":
        """Return it as a request has it."""
        fields: "Dict[str, Any]" = {"device": self.device, "inode": self.inode}
        if self.mount is not None:
            fields["mount"] = {name: getattr(self.mount, name) for name in self.mount.__slots__}
        return fields
