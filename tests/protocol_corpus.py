"""A corpus of requests and event streams, read by the protocol under whatever Python runs this file (3.6 or later).

test_protocol.py runs it as a program under every Python of the machine and compares what they print. One line for each
entry: what was taken or the refusal, and `never` for anything that must not happen. Error texts of the JSON reader
itself may differ between versions, so only the part before them is shown.
"""

import glob
import os
import shutil
import subprocess
import sys

OLDEST_MINOR = 6
NEWEST_MINOR = 19

BASE = b'"command":"make","cwd":"/w"'
REQUESTS = [
    b"{%s}" % BASE,
    b'{%s,"location":{"device":"8:2","inode":"7","mount":{"device":"8:2","root":"/a","point":"/b","file_system":"xfs"}}}'
    % BASE,
    b'{%s,"args":["-j4","\\u00e9\\udcff \xc3\xa9"],"timeout_sec":5,"env":{"CC":"gcc -m32"},"umask":"0027"}' % BASE,
    b'{%s,"features":["x"],"request_id":"\xe6\xbc\xa2"}' % BASE,
    b'{%s,"timeout_sec":NaN}' % BASE,
    b'{%s,"timeout_sec":1e999}' % BASE,
    b'{%s,"timeout_sec":-1}' % BASE,
    b'{%s,"timeout_sec":%s}' % (BASE, b"1" * 18),
    b'{%s,"timeout_sec":%s}' % (BASE, b"1" * 100000),
    b'{%s,"args":["\\ud800"]}' % BASE,
    b'{%s,"args":["\\u0000"]}' % BASE,
    b'{%s,"args":["\t"]}' % BASE,
    b'{%s,"args":["\\x"]}' % BASE,
    b'{%s,"args":[1,]}' % BASE,
    b'{%s,"request_id":"\\u00a0"}' % BASE,
    b'{%s,"schema_version":"2"}' % BASE,
    b'{"command":"rm",%s}' % BASE,
    b"\xef\xbb\xbf{%s}" % BASE,
    b"\x0b{%s}" % BASE,
    b"{%s}\0" % BASE,
    b"\xff",
    b"",
    b"[" * 200000,
    b'{"a":' * 200000,
    b"[]",
    b"1" * 100000,
]
STREAMS = [
    b'{"type": "stdout", "data": "a"}\n{"type": "exit", "code": 2, "timed_out": false}\n',
    b'{"type":"stderr","data":"\xef\xbf\xbd","encoding":"base64","data_b64":"/w=="}\n{"type":"exit","code":0}\n',
    b'{"type":"stdout","data":"\\udcff"}\n{"type":"exit","code":300}\n',
    b'{"type":"stdout","data":"\\ud800"}\n',
    b'{"type":"later"}\n{"type":"exit","code":true}\n',
    b'{"type":"exit","code":%s}\n' % (b"9" * 4000),
    b'{"type":"exit","code":0,"env_left_out":["BOARD","\\udcff\\u001b",1,null]}\n',
    b'{"type":"exit","code":0,"env_left_out":"BOARD"}\n',
    b"[" * 200000 + b"\n",
    b"\xff\n",
    b"{}\n",
]


def other_pythons():
    """Each further Python 3 on PATH or in pyenv's place, one of a version."""
    places = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin")))
    path = os.pathsep.join(["/usr/bin", "/usr/local/bin", *places])
    found = []
    for minor in range(OLDEST_MINOR, NEWEST_MINOR + 1):
        python = shutil.which("python3.%d" % minor, path=path)
        if python and minor != sys.version_info[1]:
            works = subprocess.Popen([python, "-S", "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found += [python] if works.wait() == 0 else []
    return found


def outcome(reader, data, error):
    shown = []
    try:
        reader.receive_data(data)
        while True:
            event = reader.next_event()
            if event is None:
                break
            shown.append(event)
        reader.receive_eof()
        shown.append(reader.next_event())
    except error as exc:
        shown.append(str(exc).partition("not JSON")[0])
    except Exception as exc:
        shown.append("never: %s" % type(exc).__name__)
    return ascii(shown)


def encoded(requests, events):
    request = requests.Request("make", ["\u00e9\udcff\n"], "/w", 5, "id", {"CC": "gcc"}, 0o27, ["x"])
    yield requests.encode_request(request)
    yield events.encode_output("stdout", b"\x00\x1f\x7f\n\"\\\xc3\xa9")
    yield events.encode_output("stderr", b"\xff\xc3")
    yield events.encode_exit(events.Exit(124, True, 15, 12, 600, "id", ("timeout", "x")), True)
    yield events.encode_exit(events.Exit(0, env_left_out=["BOARD", "\u00e9\x1b"]), True)


def main(library):
    sys.path.insert(0, library)
    from buildcore.core.protocol import events, requests

    for data in REQUESTS:
        print(outcome(requests.RequestReader(), data + b"\n", requests.RequestError))
        print(outcome(requests.RequestReader(), data, requests.RequestError))
    for data in STREAMS:
        print(outcome(events.EventReader(), data, events.ResponseError))
    for line in encoded(requests, events):
        print(ascii(line))


if __name__ == "__main__":
    main(sys.argv[1])
