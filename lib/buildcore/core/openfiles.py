"""Paths that name no file but what a process has open: its standard input, which is its caller's, or another one.

Linux gives each process its own in /proc/self/fd (proc(5)), and /dev/stdin and /dev/fd lead there.
"""

from __future__ import annotations

import re

_INPUT = re.compile(r"/+dev/+(stdin|fd/+0)|/+proc/+self/+fd/+0")
_ANY = re.compile(r"/+dev/+(std(in|out|err)|fd/+[0-9]+)|/+proc/+self/+fd/+[0-9]+")


NOTHING = "/dev/null"


def is_anyone_s(path: str) -> bool:
    """Tell whether `path` leads to no place: to what its opener has at its standard input, or to NOTHING (null(4))."""
    return path == NOTHING or is_input(path)


def is_input(path: str) -> bool:
    """Tell whether `path` is whatever stands at the standard input of who opens it."""
    return _INPUT.fullmatch(path) is not None


def is_open_file(path: str) -> bool:
    """Tell whether `path` is what the process that opens it already has open, by its number."""
    return _ANY.fullmatch(path) is not None
