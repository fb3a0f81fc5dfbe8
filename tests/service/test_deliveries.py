"""Callers who do not read after their builds have ended: they keep no place, and not for ever, and are not too many."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_denial import BUILDERS
from test_faults import Faults

import harness
from buildcore.core import places
from buildcore.service import reload as reload_module
from buildcore.service.delivery import DELIVERY_SEC
from daemon import Service
from harness import await_exit, descendants, write_tree
from harness_world import BUILDERS_GID, DEV1, DEV2, OUTSIDER, User, inside
from wire import WAITING, Gate, RawCaller, at_rest, foreign_processes, parent_of, session_ahead, waiting_make

StartService = Callable[..., Service]

OUTPUT_BYTES = 450_000
"""More than a socket takes while nobody reads, less than keeps the build from ending."""

MAKEFILE = f"""quick:
\t@echo quick
much:
\t@yes | head -c {OUTPUT_BYTES}
slow:
{WAITING}limit:
\t@ulimit -Sn
slow-much:
{WAITING}\t@yes | head -c {OUTPUT_BYTES}
"""


@pytest.fixture
def faults() -> Iterator[Faults]:
    directory = harness.open_directory()
    made = Faults(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


def ready(service: Service, *users: User) -> Service:
    for user in {service.caller, *users}:
        write_tree(service.daemon.workspace_of(user), {"Makefile": MAKEFILE}, user)
    return service


def deliver(service: Service, stack: ExitStack, name: str, user: User | None = None) -> RawCaller:
    """A caller who does not read, whose build has ended."""
    user = user or service.caller
    groups = [user.gid, BUILDERS_GID] if inside() else None
    caller = stack.enter_context(RawCaller(service, user, groups))
    caller.ask("much", cwd=str(service.daemon.workspace_of(user)), request_id=name)
    service.daemon.await_log(f"build completed .*request_id={name}$")
    return caller


def ends_early(caller: RawCaller) -> bool:
    """Reads all that is left, and tells whether there was no exit behind it."""
    caller.socket.settimeout(harness.PATIENCE_SEC)
    with caller.socket.makefile("rb") as stream:
        return b'"exit"' not in stream.read()


def test_who_does_not_read_keeps_no_place(flavour: str, start_service: StartService) -> None:
    service = ready(start_service(flavour, {"service": {"max_connections_per_user": 2, "max_connections": 2}}))
    with ExitStack() as stack:
        callers = [deliver(service, stack, f"unread-{number}") for number in range(2)]
        assert not foreign_processes(service.daemon)
        assert service.run("make", "quick").stdout == "quick\n"
        assert [caller.exit()["code"] for caller in callers] == [0, 0]
        assert {len(caller.text()) for caller in callers} == {OUTPUT_BYTES}
    assert at_rest(service.daemon)


@pytest.mark.needs_root
def test_several_users_who_do_not_read_keep_nobody_out(start_service: StartService) -> None:
    settings = {"service": {"max_connections_per_user": 8, "max_connections": 32}, "build": {"min_uid": 1}}
    service = ready(start_service("root", settings), OUTSIDER, *BUILDERS)
    with ExitStack() as stack:
        for number in range(8):
            for user in BUILDERS:
                deliver(service, stack, f"{user.name}-{number}", user)
        with RawCaller(service, OUTSIDER, [OUTSIDER.gid, BUILDERS_GID]) as caller:
            caller.ask("quick", cwd=str(service.daemon.workspace_of(OUTSIDER)))
            assert caller.exit()["code"] == 0
    assert at_rest(service.daemon)


def test_one_delivery_too_many_of_a_user_ends_its_first(flavour: str, start_service: StartService) -> None:
    service = ready(start_service(flavour, {"service": {"max_connections_per_user": 2}}))
    with ExitStack() as stack:
        callers = [deliver(service, stack, f"unread-{number}") for number in range(3)]
        service.daemon.await_log("WARN build_service: a caller did not read its output .*request_id=unread-0$")
        assert ends_early(callers[0])
        assert [caller.exit()["code"] for caller in callers[1:]] == [0, 0]
    assert at_rest(service.daemon)


@pytest.mark.needs_root
def test_one_delivery_too_many_in_all_ends_the_first_of_who_has_the_most(start_service: StartService) -> None:
    service = ready(start_service("root", {"service": {"max_connections": 3}}), DEV2)
    with ExitStack() as stack:
        other = deliver(service, stack, "other", DEV2)
        callers = [deliver(service, stack, f"unread-{number}", DEV1) for number in range(3)]
        service.daemon.await_log("WARN build_service: a caller did not read its output .*request_id=unread-0$")
        assert ends_early(callers[0])
        assert [caller.exit()["code"] for caller in [other, *callers[1:]]] == [0, 0, 0]
    assert at_rest(service.daemon)


@pytest.fixture
def slow_reader(flavour: str, faults: Faults, start_service: StartService) -> Service:
    return ready(start_service(flavour, env=faults.env))


def test_who_takes_nothing_is_let_go_of_when_the_time_is_over(slow_reader: Service, faults: Faults) -> None:
    with ExitStack() as stack:
        session = session_ahead(slow_reader)
        caller = deliver(slow_reader, stack, "unread")
        faults.let_pass(round(DELIVERY_SEC) - 30)
        os.kill(session, signal.SIGCHLD)  # whatever wakes it: it looks at the clock
        assert not await_exit(session, 0.2)
        faults.let_pass(round(DELIVERY_SEC) + 1)
        os.kill(session, signal.SIGCHLD)
        assert await_exit(session)
        slow_reader.daemon.await_log("WARN build_service: a caller did not read its output .*request_id=unread$")
        assert ends_early(caller)
    assert at_rest(slow_reader.daemon)


def test_who_takes_something_has_the_time_anew(slow_reader: Service, faults: Faults) -> None:
    with ExitStack() as stack:
        session = session_ahead(slow_reader)
        caller = deliver(slow_reader, stack, "late")
        faults.let_pass(round(DELIVERY_SEC) - 30)
        while len(caller.text()) < OUTPUT_BYTES // 9:  # what is left is still more than the socket takes
            assert caller.next_event()
        assert not await_exit(session, 0.2)
        faults.let_pass(round(DELIVERY_SEC) + 30)
        os.kill(session, signal.SIGCHLD)
        assert caller.exit()["code"] == 0
        assert len(caller.text()) == OUTPUT_BYTES
    assert at_rest(slow_reader.daemon)


def test_a_build_that_runs_has_its_own_limit_however_slowly_it_is_read(slow_reader: Service, faults: Faults) -> None:
    with Gate(slow_reader.workspace, slow_reader.caller) as gate, RawCaller(slow_reader) as caller:
        make = waiting_make(caller.ask("slow", timeout_sec=1000).await_output("waits\n"))
        faults.let_pass(round(DELIVERY_SEC) + 1)
        os.kill(parent_of(make), signal.SIGCHLD)
        gate.open()
        assert caller.exit()["code"] == 0


def test_places_and_deliveries_outlast_a_reload(flavour: str, start_service: StartService) -> None:
    service = ready(start_service(flavour, {"service": {"max_connections_per_user": 1}}))
    with ExitStack() as stack:
        before = deliver(service, stack, "before")
        gate = stack.enter_context(Gate(service.workspace, service.caller))
        running = stack.enter_context(RawCaller(service))
        running.ask("slow-much", request_id="over").await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service listens", count=2)
        assert service.run("make", "quick").stderr.startswith("build-service is busy: 1 of your builds")
        gate.open()
        service.daemon.await_log("build completed .*request_id=over$")
        # That is one delivery too many, of the two from before the reload.
        service.daemon.await_log("a caller did not read its output .*request_id=before$")
        assert service.run("make", "quick").stdout == "quick\n"
        assert ends_early(before)
        assert running.exit()["code"] == 0
    assert at_rest(service.daemon)


def test_a_delivery_outlasts_the_arbiter(flavour: str, start_service: StartService) -> None:
    service = ready(start_service(flavour))
    with ExitStack() as stack:
        caller = deliver(service, stack, "orphaned")
        left = [each.pid for each in descendants(service.daemon.pid)]
        service.daemon.kill()
        assert caller.exit()["code"] == 0
        assert len(caller.text()) == OUTPUT_BYTES
    service.daemon.socket.unlink()
    for pid in left:
        assert await_exit(pid)
        os.waitpid(pid, 0)


# --- the handover and the descriptors ---------------------------------------------------------------------------------


def test_a_handover_of_version_1_is_read() -> None:
    """That of a service before places: its sessions have theirs until they end."""
    fields = {
        "version": 1, "pid": 7, "listener": 3, "device": 1, "inode": 2, "ours": True, "channel": [4, 5, 6, 7],
        "writer": 8, "sessions": [[9, 1000]], "ending": [10], "config": "x",
    }
    number = os.memfd_create("handover")
    os.write(number, json.dumps(fields).encode())
    handover = reload_module.take({reload_module.VARIABLE: str(number)})
    assert handover == reload_module.Handover(7, 3, 1, 2, True, (4, 5, 6, 7), 8, ((9, 1000),), (10,), "x")
    assert (handover.places, handover.delivering, handover.open_files) == ((), (), None)


def test_a_handover_comes_as_it_was_made() -> None:
    handover = reload_module.Handover(
        1, 0, 0, 0, True, (0, 0, 0, 0), 1, ((5, 6),), (7,), None, ((5, 9),), (5,), 1024
    )
    assert reload_module.take({reload_module.VARIABLE: str(handover.file())}) == handover


@pytest.mark.parametrize("reloads", [0, 1])
def test_builds_have_the_service_s_own_limit_of_descriptors(
    reloads: int, flavour: str, start_service: StartService
) -> None:
    service = ready(start_service(flavour, launcher=["sh", "-c", 'ulimit -Sn 300 && exec "$@"', "sh"]))
    for number in range(reloads):
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service listens", count=number + 2)
    assert service.run("make", "limit").stdout == "300\n"
    limits = Path(f"/proc/{service.daemon.pid}/limits").read_text()
    soft = int(re.findall(r"Max open files\s+(\d+)", limits)[0])
    assert soft > 2000  # a descriptor for each of so many sessions
    service.daemon.stop()
    service.daemon.socket.unlink(missing_ok=True)


def test_a_session_that_waits_and_one_that_serves_have_one_end_of_one_channel(service: Service) -> None:
    ready(service)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller, RawCaller(service) as second:
        makes = [waiting_make(each.ask("slow").await_output("waits\n")) for each in (caller, second)]
        for make in makes:
            session = parent_of(make)
            names = [os.readlink(f"/proc/{session}/fd/{name}") for name in os.listdir(f"/proc/{session}/fd")]
            assert sum(name.startswith("socket:") for name in names) == 3  # the caller, the arbiter, the log
        gate.open(2)
        assert [each.exit()["code"] for each in (caller, second)] == [0, 0]
    assert at_rest(service.daemon)


# --- who makes room ---------------------------------------------------------------------------------------------------

DELIVERIES = st.dictionaries(st.integers(1, 100), st.integers(1, 5), max_size=40)
LIMITS = st.builds(places.Limits, st.integers(1, 20), st.integers(1, 20))


@given(DELIVERIES, LIMITS)
def test_who_makes_room_is_the_first_of_the_user_with_the_most(given_: dict[int, int], limits: places.Limits) -> None:
    left = dict(given_)
    while (pid := places.one_too_many(left, limits)) is not None:
        uids = list(left.values())
        assert uids.count(left[pid]) == max(map(uids.count, uids))
        assert pid == next(key for key, uid in left.items() if uid == left[pid])
        del left[pid]
    uids = list(left.values())
    assert len(uids) <= limits.in_all and all(uids.count(uid) <= limits.of_a_user for uid in uids)


@given(st.lists(st.integers(1, 3), max_size=8), st.integers(1, 3), LIMITS)
def test_a_caller_is_refused_where_there_is_no_place(serving: list[int], uid: int, limits: places.Limits) -> None:
    room = len(serving) < limits.in_all and serving.count(uid) < limits.of_a_user
    assert (places.refusal(serving, uid, limits) is None) == room
