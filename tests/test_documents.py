"""The documents are held to the code: every key, option, variable, message and link, and every example, as it stands.

They are read as their reader sees them: tables by their first column, programs by the text that is to come out.
"""

from __future__ import annotations

import importlib
import json
import posixpath
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import harness
import tools
from buildcore.caller import build_cli
from buildcore.core import keys, settings
from buildcore.core.protocol import events, requests
from buildcore.system import config
from daemon import Service
from harness import BIN, TREE, write_tree
from harness_world import ROOT

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
}
README = DOCUMENTS["README.md"]
CONFIGURATION, ERRORS, INSTALL, LIBRARY, PROTOCOL, USE = (
    DOCUMENTS[f"docs/{name}.md"] for name in ("CONFIGURATION", "ERRORS", "INSTALL", "LIBRARY", "PROTOCOL", "USE")
)
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for path in [*sorted(ROOT.glob("lib/buildcore/**/*.py")), *sorted(ROOT.glob("bin/*"))]
)

SOCKET = "/run/build-service/build-service.sock"
PROJECT = "/home/dev1/workspace/app"
"""What the examples name; in the flavour root both are there under these very names."""

MAKEFILE = "all:\n\t@echo building\ntest:\n\t@echo 1 test failed; sleep 60\n"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|\bN(?=s?\b)")
MOST_LINES = 200
SHORTEST_TELLING = 4
"""Pieces of a message between placeholders that are shorter, such as ": ", are everywhere."""


def section(document: str, title: str) -> str:
    """The text below the heading `title`, to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each table row of `text` but the lines of dashes; the heads of tables are rows, too."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|- "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def codes(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


# --- keys, options, variables, messages ---------------------------------------------------------------------------


def documented_keys() -> dict[str, str]:
    """The configuration table: {dotted key: default, as TOML}. One that is a list of its own is a table elsewhere."""
    table = [row for row in rows(CONFIGURATION) if len(row) == 3 and row[0].startswith("`")]
    variables = [name for row in rows(section(CONFIGURATION, "Variables")) for name in codes(row[1])]
    elsewhere = {"[below](#variables)": json.dumps(variables)}
    return {codes(key)[0]: elsewhere.get(default) or codes(default)[0] for key, default, _ in table}


def test_the_configuration_table_has_every_key_in_order_and_no_other() -> None:
    assert list(documented_keys()) == list(keys.keys())


@pytest.mark.parametrize("key", keys.keys())
def test_the_configuration_table_tells_the_default(key: str) -> None:
    default: object = settings.Settings()
    for name in key.split("."):
        default = getattr(default, name)
    read = config.parse(f"{key} = {documented_keys()[key]}\n")
    found: object = read
    for name in key.split("."):
        found = getattr(found, name)
    assert found == default


def documented_options(text: str) -> set[str]:
    """The long options in the first column of the tables of `text`."""
    return {option for row in rows(text) for code in codes(row[0]) for option in re.findall(r"^--[a-z-]+", code)}


def test_the_options_of_the_client_are_all_in_the_table_and_exist() -> None:
    known = set(re.findall(r"--[a-z-]+", build_cli.USAGE)) | {"--help", "--version"}
    assert documented_options(USE) == known


@pytest.mark.parametrize("option", sorted(documented_options(USE) - {"--help", "--version"}))
def test_the_client_takes_every_option_of_the_table(option: str) -> None:
    value = {"--timeout": "5", "--env": "NAME=VALUE", "--stdio": "pass"}.get(option, "value")
    assert build_cli.parse([option, value, "make", "-j4"]).command == ["make", "-j4"]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_use_of_the_client_in_a_document_is_a_command_line_that_it_takes(document: str) -> None:
    for line in re.findall(r"\bbuild-cli (-[^`|\n]*)", DOCUMENTS[document]):
        words = line.split()
        if words[0] not in ("--help", "--version"):
            assert build_cli.parse(words).command, line


def test_the_options_of_the_daemon_are_all_named_and_exist() -> None:
    help_text = subprocess.run(
        [BIN / "build-service", "--help"],
        env={"PATH": harness.daemon_path()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_text, re.MULTILINE))
    named = codes(section(CONFIGURATION, "Options of the daemon"))
    assert {code.partition(" ")[0] for code in named} == known


def test_the_variables_are_all_in_the_table_and_exist() -> None:
    table = {code for row in rows(USE) for code in codes(row[0]) if code.startswith("BUILD_")}
    assert table == set(re.findall(r"\bBUILD_SERVICE_[A-Z_]+", SOURCES))


def messages() -> list[str]:
    return [codes(row[0])[0] for row in rows(section(ERRORS, "Messages")) if row[0].startswith("`")]


@pytest.mark.parametrize("message", messages())
def test_every_message_of_the_error_table_is_in_the_code(message: str) -> None:
    pieces = [piece.strip() for piece in PLACEHOLDER.split(message)]
    telling = [piece for piece in pieces if len(piece) >= SHORTEST_TELLING]
    assert telling, "nothing but placeholders"
    assert [piece for piece in telling if piece not in SOURCES] == []


# --- README, links ------------------------------------------------------------------------------------------------


def test_the_readme_is_short_enough_to_be_read_to_its_end() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: str) -> list[tuple[str, str]]:
    """The relative links of a document, each as the path that it leads to, from the top level on, and its anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", DOCUMENTS[document]))
    found = [target.partition("#") for target in targets if "://" not in target]
    directory = posixpath.dirname(document)
    return [(posixpath.normpath(posixpath.join(directory, path)) if path else document, at) for path, _, at in found]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_relative_link_leads_somewhere(document: str) -> None:
    for path, anchor in links(document):
        assert (ROOT / path).exists(), path
        if anchor:
            assert anchor in anchors((ROOT / path).read_text(encoding="utf-8")), f"{path}#{anchor}"


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_it_links() -> None:
    first = {path for path, _ in links("README.md")}
    second = {path for page in first & set(DOCUMENTS) for path, _ in links(page)}
    assert set(DOCUMENTS) - first - second - {"README.md"} == set()


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_file_of_the_tests_that_a_document_names_is_there(document: str) -> None:
    for path in re.findall(r"\btests/[\w/]+(?:\.\w+)?", DOCUMENTS[document]):
        assert (ROOT / path).exists(), path


# --- TOML, JSON, lines of a Containerfile -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [text for page in DOCUMENTS.values() for kind, text in FENCE.findall(page) if kind == "toml"]
)
def test_every_toml_example_is_a_configuration_that_the_service_takes(text: str) -> None:
    assert config.parse(text) != settings.Settings()


def test_the_image_of_the_readme_is_made_as_the_snippet_says() -> None:
    snippet = (ROOT / "etc/Containerfile.snippet").read_text(encoding="utf-8")
    said = [line for line in snippet.splitlines() if line and not line.startswith("#")]
    assert [line for line in README.splitlines() if line in said] == said


@pytest.mark.parametrize("text", [text for kind, text in FENCE.findall(PROTOCOL) if kind == "json"])
def test_every_json_example_is_what_the_protocol_takes(text: str) -> None:
    for line in text.encode().splitlines(keepends=True):
        if b'"command"' in line:
            assert requests.parse_request(line.strip()).command == "make"
        elif b'"cancel"' in line or b'"signal"' in line and b'"exit"' not in line:
            reader = requests.RequestReader()
            reader.receive_data(b'{"command":"make","cwd":"/"}\n' + line)
            assert isinstance(reader.next_event(), requests.Request)
            assert reader.next_event() == (requests.Cancel("INT") if b'"cancel"' in line else requests.Signal("STOP"))
        else:
            stream = events.EventReader()
            stream.receive_data(line)
            event = stream.next_event()
            assert isinstance(event, (events.Exit, events.Output))
            if isinstance(event, events.Exit):
                assert events.encode_exit(event, details=True) == line
            else:
                assert events.encode_output(event.stream, event.data) == line.replace(b"\\ufffd", b"\xef\xbf\xbd")


# --- the library ----------------------------------------------------------------------------------------------------


def public_names() -> list[tuple[str, str]]:
    """The module and the name of each that other programs may rely on, as LIBRARY.md lists them."""
    table = [row for row in rows(section(LIBRARY, "What to rely on")) if row[0].startswith("`")]
    return [(codes(module)[0], name) for module, names in table for name in codes(names)]


@pytest.mark.parametrize(("module", "name"), public_names())
def test_every_name_that_others_may_rely_on_is_there_and_says_what_it_is(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, str) or found.__doc__


# --- the programs in the documents --------------------------------------------------------------------------------


class Example(NamedTuple):
    """A program as a document shows it, and what the document says that it prints."""

    name: str
    interpreter: str
    tool: str
    program: str
    output: str


def examples() -> list[Example]:
    """The library's uses in LIBRARY.md, each before its output; the sessions of PROTOCOL.md, before one for all."""
    blocks = FENCE.findall(LIBRARY)
    kinds = [kind for kind, _ in blocks]
    assert kinds == ["python", "text"] * 3, kinds
    found = [
        Example(name, "python", "", blocks[2 * n][1], blocks[2 * n + 1][1])
        for n, name in enumerate(("library-run", "library-events", "library-config"))
    ]
    *sessions, (_, output) = FENCE.findall(section(PROTOCOL, "An example session"))
    assert [kind for kind, _ in sessions] == ["sh", "sh", "python"]
    for (kind, program), tool in zip(sessions, ("nc.openbsd", "socat", "")):
        found.append(Example(f"session-{tool or kind}", kind, tool, program, output))
    return found


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_runs_and_prints_what_it_says(
    example: Example, flavour: str, start_service: Callable[..., Service]
) -> None:
    if example.tool:
        tools.need(example.tool)
    service = start_service(flavour, {"service": {"socket_path": SOCKET}} if flavour == "root" else {})
    project = write_tree(service.workspace / "app", {"Makefile": MAKEFILE}, service.caller)
    named = {SOCKET: str(service.daemon.socket), PROJECT: str(project)}
    if flavour == "root":
        assert named == {name: name for name in named}, "the example runs as it stands"
    assert run_example(example, named, service) == example.output


def run_example(example: Example, named: Mapping[str, str], service: Service) -> str:
    """Runs it as the caller, with the names that are other ones here replaced; returns what it printed."""
    program = example.program
    for name, here in named.items():
        program = program.replace(name, here)
    interpreter: Path | str = "sh"
    if example.interpreter == "python":
        interpreter = Path(harness.daemon_python_directory()) / "python3"
    run = harness.run_as(
        service.caller, [interpreter, "-c", program], "/", {"PYTHONPATH": str(TREE / "lib"), "PYTHONWARNINGS": "error"}
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout
