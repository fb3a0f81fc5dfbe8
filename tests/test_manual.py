"""The manual pages are held to the programs: options, variables, keys, defaults, ranges, examples; and they are sound.

Each is read as text, as man(1) shows it on a very wide terminal; what heads a paragraph is read from its source.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import harness
import tools
from buildcore import __version__
from buildcore.caller import build_cli, build_ctl, client, doctor
from buildcore.core import keys, settings
from buildcore.core.faults import ConfigError
from buildcore.system import config
from harness import BIN, TREE

DIRECTORY = TREE / "etc/man"
CLI, CTL, SERVICE, TOML = PAGES = ("build-cli.1", "build-ctl.1", "build-service.8", "build-service.toml.5")
every_page = pytest.mark.parametrize("page", PAGES)

VARIABLE = re.compile(r"\b(?:BUILD_SERVICE|LISTEN|NOTIFY|WATCHDOG|XDG)_[A-Z_]+\b")
READERS = {
    CLI: ["lib/buildcore/caller/build_cli.py", "lib/buildcore/caller/client.py", "bin/make-wrapper.sh"],
    CTL: ["lib/buildcore/caller/client.py", "lib/buildcore/core/keys.py", "lib/buildcore/system/config.py"],
    SERVICE: [
        "lib/buildcore/service/main.py",
        "lib/buildcore/core/keys.py",
        *(f"lib/buildcore/system/{part}.py" for part in ("config", "listener", "notify")),
    ],
}
"""Which files read the variables that a page has to name."""

HELP = {"--help", "--version"}


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with a small environment; skips the test where it is not installed."""
    if command[0] in tools.BY_NAME:
        tools.need(str(command[0]))
    environment = {"PATH": harness.daemon_path(), "LANG": "C.UTF-8", **env}
    return subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)


def source(page: str) -> str:
    return (DIRECTORY / page).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=None)
def shown(page: str) -> str:
    done = run("man", "-l", DIRECTORY / page, MANWIDTH="3000")
    assert done.returncode == 0, done.stderr
    return done.stdout


def section(page: str, title: str) -> str:
    """What is shown below the heading `title`, to the next one."""
    found = re.search(rf"^{title}\n(.*?)(?=^\S)", shown(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title}"
    return found[1]


def heads(page: str, title: str) -> str:
    """What heads the paragraphs of a section, a line for each, hyphens as they are shown."""
    found = re.search(rf"^\.SH {title}\n(.*?)(?=^\.SH)", source(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {title}"
    lines = re.findall(r"^\.T[PQ]\n(?:\.[BI]+ )?(.*)", found[1], re.MULTILINE)
    return "\n".join(lines).replace("\\-", "-")


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


# --- the pages as such ----------------------------------------------------------------------------------------------


def test_there_is_a_page_for_each_program_and_for_the_configuration() -> None:
    assert sorted(path.name for path in DIRECTORY.iterdir()) == sorted(PAGES)


@every_page
def test_man_shows_a_page_without_a_warning(page: str) -> None:
    done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", DIRECTORY / page)
    assert (done.returncode, done.stderr) == (0, "")


@every_page
def test_groff_formats_a_page_without_a_warning(page: str) -> None:
    done = run("groff", "-ww", "-man", "-Tutf8", "-z", DIRECTORY / page)
    assert (done.returncode, done.stderr) == (0, "")


@every_page
def test_mandoc_finds_nothing_to_warn_of(page: str) -> None:
    done = run("mandoc", "-Tlint", "-W", "warning", DIRECTORY / page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@every_page
def test_whatis_can_find_a_page_by_its_name(page: str) -> None:
    done = run("lexgrog", DIRECTORY / page)
    assert re.search(rf': "{page.rpartition(".")[0]} - \w.*"', done.stdout), done


@every_page
def test_no_roff_is_left_in_what_is_shown(page: str) -> None:
    assert re.findall(r"\\\S*|^ *\.[A-Z]{1,2}\b.*", shown(page), re.MULTILINE) == []


@every_page
def test_whatever_can_be_copied_has_hyphens_as_they_are_typed(page: str) -> None:
    body = [line for line in source(page).splitlines() if not line.startswith(('.\\"', ".TH"))]
    assert [line for line in body if re.search(r"(?<!\\)-", line)] == []
    assert "\N{HYPHEN}" not in shown(page)


@every_page
def test_the_header_tells_name_section_version_and_the_date_of_the_release(page: str) -> None:
    name, _, number = page.rpartition(".")
    header = re.search(r'^\.TH (\S+) (\d) (\S+) "(.*?)" ', source(page), re.MULTILINE)
    assert header
    found_name, found_number, date, version = (text.replace("\\-", "-") for text in header.groups())
    assert (found_name, found_number, version) == (name.upper(), number, f"build-service {__version__}")
    changelog = (TREE / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(rf"^## \[{re.escape(__version__)}\] - (\S+)$", changelog, re.MULTILINE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date) and (not released or released[1] == date)


@every_page
def test_every_page_of_this_project_that_is_named_is_there(page: str) -> None:
    named = {f"{name}.{number}" for name, number in re.findall(r"\b(build-[a-z.]+)\((\d)\)", shown(page))}
    assert named - {page.upper()} <= set(PAGES)
    assert set(PAGES) - {page} <= named


# --- options and variables ------------------------------------------------------------------------------------------


def daemon_options() -> set[str]:
    done = run(BIN / "build-service", "--help")
    return set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("page", [CLI, CTL, SERVICE])
def test_all_options_are_explained_and_no_others(page: str) -> None:
    known = {CLI: options_in(build_cli.USAGE), CTL: options_in(build_ctl.USAGE), SERVICE: daemon_options()}
    assert options_in(heads(page, "OPTIONS")) == known[page] | HELP
    assert options_in(section(page, "SYNOPSIS")) == known[page] | HELP


@pytest.mark.parametrize(("page", "usage"), [(CLI, build_cli.USAGE), (CTL, build_ctl.USAGE)])
def test_the_synopsis_is_the_usage_of_the_program(page: str, usage: str) -> None:
    lines = [line.strip() for line in section(page, "SYNOPSIS").splitlines() if line.strip()]
    assert lines[:-1] == [line.strip() for line in usage.partition("usage: ")[2].splitlines()]


@pytest.mark.parametrize("page", READERS)
def test_all_variables_that_a_program_reads_are_explained_and_no_others(page: str) -> None:
    read = {name for file in READERS[page] for name in VARIABLE.findall((TREE / file).read_text(encoding="utf-8"))}
    assert set(VARIABLE.findall(heads(page, "ENVIRONMENT"))) == read


def test_no_variable_is_read_that_no_page_explains() -> None:
    files = [*TREE.glob("lib/buildcore/**/*.py"), *TREE.glob("bin/*")]
    read = {name for file in files for name in VARIABLE.findall(file.read_text(encoding="utf-8"))}
    assert read == {name for page in READERS for name in VARIABLE.findall(heads(page, "ENVIRONMENT"))}


def test_the_variables_that_the_client_sends_along_are_listed() -> None:
    found = re.search(r"reach the build\.\n\n(.*?)\n\n", section(CLI, "ENVIRONMENT") + "\n", re.DOTALL)
    assert found and found[1].split() == sorted(client.FORWARDED_NAMES)


def test_the_sockets_are_listed_in_the_order_in_which_they_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "$XDG_RUNTIME_DIR")
    assert heads(CLI, "FILES").splitlines() == list(client.default_sockets())


# --- exit status, checks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "arguments", "code"),
    [
        (CLI, ["--socket", "/nowhere", "make"], 1),
        (CLI, ["--nonsense"], 1),
        (CTL, ["doctor", "--socket", "/nowhere"], 1),
        (CTL, ["commands", "--socket", "/nowhere"], 1),
        (CTL, ["nonsense"], 1),
        (SERVICE, ["--check-config", "--config", str(TREE / "etc/config.toml")], 0),
        (SERVICE, ["--config", "/nowhere"], 1),
        (SERVICE, ["--nonsense"], 2),
    ],
)
def test_a_program_exits_with_what_its_page_says(page: str, arguments: list[str], code: int) -> None:
    assert run(BIN / page.rpartition(".")[0], *arguments).returncode == code
    assert str(code) in heads(page, "EXIT STATUS").splitlines()


def test_all_checks_of_the_doctor_are_explained_and_no_others() -> None:
    code = (TREE / "lib/buildcore/caller/doctor.py").read_text(encoding="utf-8")
    checks = set(re.findall(r'Finding\(\s*"([a-z ]+)"', code)) | set(doctor.SUBJECTS.values())
    assert set(heads(CTL, "DESCRIPTION").splitlines()) == checks


def test_the_form_of_the_doctor_s_json_is_what_it_prints() -> None:
    example = json.loads(re.findall(r"^ +(\{.*\})$", section(CTL, "OPTIONS"), re.MULTILINE)[0])
    printed = json.loads(run(BIN / "build-ctl", "doctor", "--json", "--socket", "/nowhere").stdout)
    assert list(printed) == list(example)
    assert list(printed["checks"][0]) == list(example["checks"][0])


# --- the configuration ----------------------------------------------------------------------------------------------


def file_on_the_page() -> str:
    """The headings and the keys with their defaults, as a configuration file."""
    lines = re.findall(r"^ {3}(\[[a-z._]+\])$|^ {7}([a-z_]+ = .*)$", section(TOML, "KEYS"), re.MULTILINE)
    return "".join(f"{table or key}\n" for table, key in lines)


def text_of(key: str) -> str:
    """What the page says of a key; the names at the end of keys are told apart by their order."""
    name = key.rpartition(".")[2]
    (found,) = re.findall(rf"^ {{7}}{name} = .*\n +(.*)$", section(TOML, "KEYS"), re.MULTILINE)
    return str(found)


def with_value(key: str, value: int) -> str:
    table, _, name = key.rpartition(".")
    other = {"default_sec": "max_sec = 604800", "max_sec": "default_sec = 1"}  # the first must not be above the second
    return f"[{table}]\n{name} = {value}\n{other.get(name, '')}\n"


def is_valid(text: str) -> bool:
    try:
        config.parse(text)
    except ConfigError:
        return False
    return True


def test_the_page_has_every_key() -> None:
    table, found = "", set()
    for line in file_on_the_page().splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        found.add(line.strip("[]") if line.startswith("[") else table + line.partition(" ")[0])
    assert set(keys.keys()) <= found


def test_the_page_has_no_key_that_does_not_exist_and_tells_the_defaults() -> None:
    assert config.parse(file_on_the_page()) == settings.Settings()


def default_of(key: str) -> object:
    value: object = settings.Settings()
    for name in key.split("."):
        value = getattr(value, name)
    return value


TYPES = {bool: "Boolean", int: "Whole number", str: "String", tuple: "List of strings"}
SIMPLE = [key for key in keys.keys() if type(default_of(key)) in TYPES and not key.endswith("_mode")]
"""All keys but for tables, and for the mode, which is a string in the file."""

NUMBERS = [key for key in SIMPLE if type(default_of(key)) is int]


@pytest.mark.parametrize("key", NUMBERS)
def test_the_page_tells_which_numbers_a_key_takes(key: str) -> None:
    found = re.match(r"Whole number.*?, (\d+) to (\d+)", text_of(key))
    assert found, text_of(key)
    least, most = int(found[1]), int(found[2])
    taken = [is_valid(with_value(key, number)) for number in (least - 1, least, most, most + 1)]
    assert taken == [False, True, True, False]


@pytest.mark.parametrize("key", SIMPLE)
def test_the_page_tells_the_type_of_a_key(key: str) -> None:
    assert text_of(key).startswith(TYPES[type(default_of(key))])


@pytest.mark.parametrize("key", ["build.groups", "logging.level"])
def test_the_page_names_all_words_that_a_key_takes(key: str) -> None:
    words = {"build.groups": settings.GROUPS, "logging.level": settings.LEVELS}[key]
    assert re.findall(r'"([a-z]+)"', text_of(key)) == list(words)


def test_the_page_explains_all_placeholders_of_the_templates() -> None:
    assert re.findall(r"\{(\w+)\}", heads(TOML, "PATH TEMPLATES")) == list(settings.PLACEHOLDERS)


# --- examples -------------------------------------------------------------------------------------------------------


def examples(program: str) -> list[list[str]]:
    """The command lines of `program` in the examples of all pages, up to a pipe, without what is set before them."""
    blocks = [block for page in PAGES for block in re.findall(r"(?ms)^\.EX\n(.*?)^\.EE$", source(page))]
    lines = [re.sub(r"^([A-Z_]+=\S+ )+", "", line) for block in blocks for line in block.splitlines()]
    return [
        shlex.split(line.replace("\\-", "-").partition(" |")[0])[1:]
        for line in lines
        if line.replace("\\-", "-").startswith(f"{program} ")
    ]


@pytest.mark.parametrize("arguments", examples("build-cli"), ids=" ".join)
def test_an_example_of_the_client_is_a_command_line_that_it_takes(arguments: list[str]) -> None:
    assert build_cli.parse(arguments).command[0] == "make"


@pytest.mark.parametrize("arguments", examples("build-ctl"), ids=" ".join)
def test_an_example_of_build_ctl_is_a_command_line_that_it_takes(arguments: list[str]) -> None:
    done = run(BIN / "build-ctl", *arguments, BUILD_SERVICE_SOCKET="/nowhere")
    assert "socket" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("arguments", examples("build-service"), ids=" ".join)
def test_an_example_of_the_daemon_is_a_command_line_that_it_takes(arguments: list[str]) -> None:
    done = run(BIN / "build-service", *arguments, BUILD_SERVICE_CONFIG=str(TREE / "etc/config.toml"))
    assert (done.returncode, done.stdout) == (0, "configuration is valid\n")


def test_the_example_of_a_configuration_is_valid_and_says_what_the_text_says_of_it() -> None:
    text = re.sub(r"^ {7}", "", section(TOML, "EXAMPLES"), flags=re.MULTILINE)
    mapping = config.parse(text).build.path_mapping
    roots = [root("dev1", "/home/dev1", "/home") for root in (mapping.container_root, mapping.host_root)]
    for root, path in zip(roots, ("/home/dev1/app", "/home/dev1/workspace/app")):
        assert path == f"{root}/app" and path in section(TOML, "PATH TEMPLATES")
