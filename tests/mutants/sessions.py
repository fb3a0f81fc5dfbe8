"""Faults that put a session, the arbiter or a build of others within a caller's reach."""

from __future__ import annotations

from mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "untouched",
        "a session takes its ids after it has read the request",
        "lib/buildcore/service/session.py",
        "        self._take_ids(ids)\n        return Caller(account, ids, peer)\n",
        (
            "        read = self._read_request\n"
            "\n"
            "        def read_first() -> requests.Request:\n"
            "            request = read()\n"
            "            self._take_ids(ids)\n"
            "            return request\n"
            "\n"
            "        self._read_request = read_first\n"
            "        return Caller(account, ids, peer)\n"
        ),
        ("test_before_a_request_is_there_its_session_works_as_the_caller",),
    ),
    Mutant(
        "untouched",
        "a session stays root behind a block of root",
        "lib/buildcore/system/identity.py",
        "        if is_privileged():\n            os.seteuid(uid)\n",
        "        pass\n",
        ("test_the_caller_is_back_behind_a_block_of_root_that_failed",),
    ),
    Mutant(
        "untouched",
        "sessions keep the socket that the arbiter listens on",
        "lib/buildcore/service/arbiter.py",
        '        """In a forked session: close what is the arbiter\'s."""\n        self._server.socket.close()\n',
        '        """In a forked session: close what is the arbiter\'s."""\n',
        ("test_a_session_that_waits_and_one_that_serves_have_one_end_of_one_channel",),
    ),
    Mutant(
        "untouched",
        "sessions keep the log's receiving end",
        "lib/buildcore/service/log_channel.py",
        (
            "        self.receiver.close()\n"
            "\n"
            "    def keep_receiving"
        ),
        (
            "        pass\n"
            "\n"
            "    def keep_receiving"
        ),
        ("test_a_session_that_waits_and_one_that_serves_have_one_end_of_one_channel",),
    ),
    Mutant(
        "untouched",
        "sessions keep the channels of other sessions",
        "lib/buildcore/service/children.py",
        "        for channel in self._channels.values():\n            channel.close()\n",
        "",
        ("test_a_session_that_waits_and_one_that_serves_have_one_end_of_one_channel",),
    ),
    Mutant(
        "untouched",
        "a build that waits for execve has the service's descriptors",
        "lib/buildcore/service/launch.py",
        "        descriptors.close_all_but({0, 1, 2, status})  # execve(2) closes this one\n",
        "",
        ("test_who_holds_it_holds_nothing_of_the_service",),
    ),
    Mutant(
        "untouched",
        "a session keeps what its caller handed over",
        "lib/buildcore/service/session.py",
        "            self._handed.let_go()\n",
        "",
        ("test_the_service_keeps_none",),
    ),
    Mutant(
        "untouched",
        "a directory may be handed over",
        "lib/buildcore/system/passing.py",
        "    if stat.S_ISDIR(mode):\n        return",
        (
            "    if stat.S_ISDIR(mode):\n"
            "        return None\n"
            "        return"
        ),
        ("test_what_no_program_can_use_is_refused",),
    ),
    Mutant(
        "untouched",
        "a caller may lift limits of its build",
        "lib/buildcore/system/bounds.py",
        "if soft == resource.RLIM_INFINITY or wanted < soft:",
        "if True:",
        ("test_a_higher_one_is_not",),
    ),
    Mutant(
        "untouched",
        "a build's control group is open to everybody",
        "lib/buildcore/system/cgroups.py",
        "os.mkdir(path, 0o755)",
        "os.mkdir(path, 0o777)",
        ("test_whatever_the_umask_nobody_else_may_write_to_a_build_s",),
    ),
    Mutant(
        "untouched",
        "control groups are made where nobody delegated one",
        "lib/buildcore/system/cgroups.py",
        'return path if any(_attribute(path, name) == b"1" for name in DELEGATE_ATTRIBUTES) else None',
        "return path",
        ("test_only_a_group_that_was_marked_as_delegated_is_the_service_s",),
    ),
    Mutant(
        "isolated",
        "the service loads what its environment names",
        "bin/build-service",
        'exec "$python" -I "$0"',
        'exec "$python" "$0"',
        ("test_a_program_is_started_isolated[of the tree-build-service]",),
    ),
    Mutant(
        "isolated",
        "the Python that is tried for the service loads what its environment names",
        "bin/build-service",
        '"$python" -I -S -c',
        '"$python" -S -c',
        ("test_a_program_is_started_isolated[of the tree-build-service]",),
    ),
    Mutant(
        "isolated",
        "the client loads what its environment names",
        "bin/build-cli",
        'exec "$python" -I -S "$0"',
        'exec "$python" -S "$0"',
        ("test_a_program_is_started_isolated[of the tree-build-cli]",),
    ),
    Mutant(
        "isolated",
        "build-ctl loads what its environment names",
        "bin/build-ctl",
        'exec "$python" -I "$0"',
        'exec "$python" "$0"',
        ("test_a_program_is_started_isolated[of the tree-build-ctl]",),
    ),
    Mutant(
        "isolated",
        "the service loads what its environment names after a reload",
        "lib/buildcore/service/reload.py",
        '[interpreter, "-I", program.path',
        "[interpreter, program.path",
        ("test_a_service_is_isolated_after_a_reload_too",),
    ),
)
