"""The keys of the configuration: which there are, what each may be, and how each fault is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import keys
from buildcore.core.errors import BuildError
from buildcore.core.settings import Build, Environment, Logging, PathMapping, Service, Settings, Timeouts
from buildcore.system.config import parse
from configuration import LITERALS, faults_of, kind_in_file, the_fault, value_at

# --- every key ----------------------------------------------------------------------------------------------------


def test_every_key_has_a_rule_for_its_value_and_no_rule_is_left_over() -> None:
    assert set(keys.READERS) == set(keys.keys())


def test_every_key_can_be_set() -> None:
    settings = parse(
        """
        schema_version = "1"
        [service]
        socket_path = "/run/other.sock"
        socket_group = "builders"
        socket_mode = "0600"
        prefork = 0
        [build]
        workspace_root = "/srv"
        groups = "login"
        min_uid = 500
        no_new_privs = false
        workspace_commands = ["configure", "tests/run.sh"]
        [build.commands]
        ninja = "/usr/bin/ninja"
        [build.timeouts]
        default_sec = 1
        max_sec = 2
        grace_sec = 0
        [build.environment]
        allow = ["LANG", "_x1"]
        set = { PATH = "/opt/bin", EMPTY = "" }
        [build.path_mapping]
        container_template = "/sources"
        host_template = "{home}/ws"
        mode = "templates"
        [logging]
        level = "trace"
        directory = ""
        max_bytes = 4096
        max_files = 1
        console = true
        """
    )
    assert settings == Settings(
        service=Service("/run/other.sock", "builders", 0o600, 0),
        build=Build(
            "/srv",
            {"ninja": "/usr/bin/ninja"},
            ("configure", "tests/run.sh"),
            "login",
            500,
            False,
            Timeouts(1, 2, 0),
            Environment(("LANG", "_x1"), {"PATH": "/opt/bin", "EMPTY": ""}),
            PathMapping("/sources", "{home}/ws", "templates"),
        ),
        logging=Logging("trace", "", 4096, 1, True),
    )


def test_a_table_of_commands_takes_the_place_of_the_default_one() -> None:
    settings = parse('build.commands.ninja = "/usr/bin/ninja"')
    assert dict(settings.build.commands) == {"ninja": "/usr/bin/ninja"}


def test_what_a_file_does_not_name_is_as_in_the_defaults_that_are_given() -> None:
    own = Settings(service=Service(socket_path="/run/own.sock", prefork=3))
    settings = parse("service.prefork = 2", defaults=own)
    assert settings.service == Service(socket_path="/run/own.sock", prefork=2)


# --- unknown keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "build.timeouts.defualt_sec = 5",
            "build.timeouts.defualt_sec: unknown key (did you mean default_sec?)",
        ),
        ("[build.timeout]\nmax_sec = 5", "build.timeout: unknown section (did you mean timeouts?)"),
        ("[Logging]", "Logging: unknown section (did you mean logging?)"),
        ("[[services]]", "services: unknown key (did you mean service?)"),
        ("[timeouts]", "timeouts: unknown section (did you mean build.timeouts?)"),
        ('socket_path = "/x"', "socket_path: unknown key (did you mean service.socket_path?)"),
        ("[tls]", "tls: unknown section (known here: schema_version, service, build, logging)"),
        ("build.environment.xyz = 1", "build.environment.xyz: unknown key (known here: allow, set)"),
        ('"a b\\n" = 1', "'a b\\n': unknown key (known here: schema_version, service, build, logging)"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text: str, fault: str) -> None:
    assert the_fault(text) == f"file: {fault}"


@st.composite
def misspelt_keys(draw: st.DrawFn) -> tuple[str, str]:
    """A key with one slip of the pen in its last part, and that part as it should be."""
    section, _, name = draw(st.sampled_from(keys.keys())).rpartition(".")
    at = draw(st.integers(0, len(name) - 2))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1] + name[at] + name[at + 2 :],
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[:at] + "x" + name[at:],
                name.replace("_", "-") if "_" in name else name + "s",
                name.upper(),
            ]
        ).filter(lambda wrong: wrong != name)
    )
    return (f"{section}.{wrong}" if section else wrong), name


@given(misspelt_keys(), st.sampled_from(sorted(set(LITERALS) - {"table"})))
def test_a_slip_of_the_pen_is_told_with_the_right_name(misspelt: tuple[str, str], kind: str) -> None:
    key, right = misspelt
    assert the_fault(f"{key} = {LITERALS[kind]}") == f"file: {key}: unknown key (did you mean {right}?)"


# --- wrong values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LITERALS)
@pytest.mark.parametrize("key", keys.keys())
def test_a_value_of_the_wrong_type_is_refused_by_its_dotted_key(key: str, kind: str) -> None:
    if kind != kind_in_file(key) and (key, kind) != ("build.min_uid", "integer"):  # a word, or a number
        assert the_fault(f"{key} = {LITERALS[kind]}").startswith(f"file: {key}: must be ")


@pytest.mark.parametrize("kind", sorted(set(LITERALS) - {"table"}))
@pytest.mark.parametrize("section", sorted({key.rpartition(".")[0] for key in keys.keys()} - {""}))
def test_a_section_that_is_no_table_is_refused(section: str, kind: str) -> None:
    fault = the_fault(f"{section} = {LITERALS[kind]}")
    assert fault.startswith(f"file: {section}: must be a section, [{section}], not ")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('schema_version = "2"', "must be \"1\", the version that this build-service reads, not '2'"),
        ("schema_version = 1", 'must be "1", the version that this build-service reads, not 1'),
        ('service.socket_path = "run/x.sock"', "must be an absolute path, not 'run/x.sock'"),
        ('service.socket_path = ""', "must be an absolute path, not ''"),
        ('service.socket_path = "/run/"', "must be the path of a socket, not of a directory, not '/run/'"),
        ('service.socket_path = "/run/\\u0000"', "must not hold control characters: '/run/\\x00'"),
        (f'service.socket_path = "/{"s" * 107}"', "must be at most 107 bytes (unix(7)), not 108"),
        (f'service.socket_path = "/{"é" * 54}"', "must be at most 107 bytes (unix(7)), not 109"),
        ('service.socket_group = ""', "must be the name of a group, not ''"),
        ('service.socket_group = "a:b"', "must be the name of a group, not 'a:b'"),
        ('service.socket_group = "100"', "must be the name of a group, not its number, not '100'"),
        ("service.socket_mode = 660", 'octal digits, such as "0660": put the number in quotes'),
        ("service.socket_mode = 0o660", "put the number in quotes"),
        ('service.socket_mode = "66"', "must be a string of 3 or 4 octal digits, such as \"0660\", not '66'"),
        ('service.socket_mode = "0680"', "not '0680'"),
        ('service.socket_mode = "0o660"', "not '0o660'"),
        ('service.socket_mode = "4660"', "must not set the set-user-ID, set-group-ID or sticky bit"),
        ('service.socket_mode = "1660"', "must not set the set-user-ID, set-group-ID or sticky bit"),
        ('service.socket_mode = "0444"', "lets nobody connect"),
        ("service.prefork = -1", "must be a whole number of processes from 0 to 64, not -1"),
        ("service.prefork = 65", "must be a whole number of processes from 0 to 64, not 65"),
        ('build.workspace_root = "home"', "must be an absolute path, not 'home'"),
        ('build.workspace_root = "/home/../srv"', "must not hold a '..'"),
        ("build.commands = {}", "must name at least one command"),
        ('build.groups = "peers"', "must be one of peer, login, common, not 'peers' (did you mean peer?)"),
        ("build.min_uid = -1", 'must be a uid from 0 to 4294967294, or "login.defs", not -1'),
        ("build.min_uid = 4294967295", 'must be a uid from 0 to 4294967294, or "login.defs", not 4294967295'),
        ('build.min_uid = "1000"', 'must be a uid from 0 to 4294967294, or "login.defs", not \'1000\''),
        ("build.timeouts.default_sec = 0", "must be a whole number of seconds from 1 to 604800, not 0"),
        ("build.timeouts.max_sec = 604801", "must be a whole number of seconds from 1 to 604800, not 604801"),
        ("build.timeouts.grace_sec = -1", "must be a whole number of seconds from 0 to 60, not -1"),
        ("build.timeouts.grace_sec = 61", "must be a whole number of seconds from 0 to 60, not 61"),
        ("build.timeouts.grace_sec = inf", "must be a whole number of seconds from 0 to 60, not inf"),
        (f"build.timeouts.max_sec = 0x{'f' * 4000}", "not a number of more than 64 bits"),
        ('build.environment.allow = ["A=B"]', "'A=B' is not the name of an environment variable"),
        ('build.environment.allow = ["1A"]', "'1A' is not the name of an environment variable"),
        ('build.environment.allow = ["A\\n"]', "'A\\n' is not the name of an environment variable"),
        ('build.environment.allow = [""]', "'' is not the name of an environment variable"),
        ("build.environment.allow = [1]", "1 is not the name of an environment variable"),
        ('build.environment.allow = ["A", "B", "A"]', "'A' stands there twice"),
        ('build.path_mapping.host_template = "{workspace_root}/x"', "must name {user} or {home}"),
        ('build.path_mapping.host_template = "{user}/x"', "must start with / or {home}/ or {workspace_"),
        ('build.path_mapping.host_template = "{home}x"', "must start with / or {home}/ or {workspace_"),
        ('build.path_mapping.host_template = "/x/{users}"', "unknown placeholder '{users}' (known: {user} "),
        ('build.path_mapping.host_template = "/x/{user}/../y"', "must not hold a '..'"),
        ('build.path_mapping.host_template = "/x/{user}\\t"', "must not hold control characters"),
        ('build.path_mapping.container_template = "/{user.name}"', "unknown placeholder '{user.name}'"),
        ('build.path_mapping.container_template = "/{}"', "unknown placeholder '{}'"),
        ('build.path_mapping.container_template = "/{{user}}"', "has a brace without its partner"),
        ('build.path_mapping.container_template = "/{user"', "has a brace without its partner"),
        ('build.path_mapping.container_template = ""', "must start with /"),
        ('logging.level = "warning"', "not 'warning' (did you mean warn?)"),
        ('logging.level = "loud"', "must be one of error, warn, info, debug, trace, not 'loud'"),
        ('logging.directory = "log"', "must be an absolute path, not 'log'"),
        ("logging.max_bytes = 4095", "must be a whole number of bytes from 4096 to 1099511627776, not 4095"),
        ("logging.max_files = 0", "must be a whole number of files from 1 to 1000, not 0"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_must_be(line: str, fault: str) -> None:
    told = the_fault(line)
    assert told.startswith(f"file: {line.partition(' = ')[0]}: ")
    assert fault in told


@pytest.mark.parametrize(
    ("line", "key", "fault"),
    [
        ('build.commands.make = "make"', "build.commands.make", "must be an absolute path, not 'make'"),
        ('build.commands.make = "/bin/\\u001bmake"', "build.commands.make", "must not hold control"),
        ('build.commands."../sh" = "/bin/sh"', "build.commands.'../sh'", "a command's name has no slash"),
        ('build.commands."a b" = "/bin/sh"', "build.commands.'a b'", "a command's name has no slash"),
        ('build.commands."-s" = "/bin/sh"', "build.commands.-s", "no '-' in front"),
        ('build.commands."" = "/bin/sh"', "build.commands.''", "a command's name has no slash"),
        ('build.commands."a\\n" = "/bin/sh"', "build.commands.'a\\n'", "a command's name has no slash"),
        ("build.environment.set.A = 1", "build.environment.set.A", "must be a string, not 1"),
        ('build.environment.set.A = "\\u0000"', "build.environment.set.A", "must not hold a NUL"),
        ('build.environment.set."A=" = ""', "build.environment.set.'A='", "not the name of an env"),
    ],
)
def test_a_wrong_entry_of_a_table_is_refused_by_its_own_key(line: str, key: str, fault: str) -> None:
    told = the_fault(line)
    assert told.startswith(f"file: {key}: ")
    assert fault in told


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f'service.socket_path = "/{"s" * 106}"', "/" + "s" * 106),
        ('service.socket_group = "domain users"', "domain users"),
        ('service.socket_mode = "666"', 0o666),
        ("service.prefork = 64", 64),
        ("build.timeouts.max_sec = 604_800", 604800),
        ("build.timeouts.grace_sec = 60", 60),
        ("build.environment.allow = []", ()),
        ('build.environment.set.A = """a\nb"""', {"A": "a\nb"}),
        ('build.path_mapping.host_template = "{home}"', "{home}"),
        ('build.path_mapping.container_template = "/workspace"', "/workspace"),
        ('logging.level = "INFO"', "info"),
        ('logging.directory = ""', ""),
    ],
)
def test_a_value_at_the_edge_of_the_rules_is_taken(line: str, value: object) -> None:
    key = line.partition(" = ")[0].replace("set.A", "set")
    assert value_at(parse(line), key) == value


@pytest.mark.parametrize("line", ["max_sec = 599", "default_sec = 1801", "default_sec = 9\nmax_sec = 8"])
def test_the_default_timeout_must_not_be_above_the_longest(line: str) -> None:
    fault = the_fault(f"[build.timeouts]\n{line}")
    assert fault.startswith("file: build.timeouts.default_sec: must not be above build.timeouts.max_sec (")


def test_a_wrong_timeout_is_not_compared() -> None:
    fault = the_fault('[build.timeouts]\ndefault_sec = 3000\nmax_sec = "4000"')
    assert fault.startswith("file: build.timeouts.max_sec: ")


def test_all_faults_are_told_together_a_line_each_in_the_order_of_the_file() -> None:
    text = """
        colour = "red"
        [logging]
        max_files = 0
        [service]
        prefork = "many"
        [build.commands]
        make = "make"
        sh = 1
        """
    faults = faults_of(text, {"BUILD_SERVICE_LOG_LEVEL": "loud"})
    assert [fault.partition(": ")[2].partition(": ")[0] for fault in faults[:-1]] == [
        "colour",
        "logging.max_files",
        "service.prefork",
        "build.commands.make",
        "build.commands.sh",
    ]
    assert faults[-1].startswith("BUILD_SERVICE_LOG_LEVEL: ")
    with pytest.raises(BuildError) as caught:
        parse(text, "file", {"BUILD_SERVICE_LOG_LEVEL": "loud"})
    assert str(caught.value).split("\n") == list(faults)
