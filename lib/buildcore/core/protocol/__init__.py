"""The wire protocol, schema version "1", without any I/O: bytes go in, requests and events come out, and back.

A caller sends one request, one JSON object on one line. The service answers with a stream of events, one JSON
object a line (NDJSON), and ends it with `exit`. While the stream runs, the caller may send one more kind of
line, `{"type":"cancel"}`. This package knows no sockets, clocks or files; whoever owns the connection feeds it.
The client imports it: it keeps to the syntax of Python 3.6 and to modules that cost little to import.

Fields that a side does not know are ignored, so that old and new sides work together. Strings may carry any
bytes of a file name: a byte that is not UTF-8 travels as the lone surrogate that Python's surrogateescape
gives it (PEP 383).
"""
