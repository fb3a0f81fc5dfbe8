"""What the log's writer takes without a budget is known line by line: what no caller can bring about at will."""

from __future__ import annotations

import ast

from floors import SHIPPED

FREE = {
    "configuration warning",  # once for each start or reload, as all of these
    "this host does not keep builds apart in all",
    "the socket keeps its group and mode",
    "service.socket_path counts from a restart on",
    "build-service listens",
    "the service manager does not listen at NOTIFY_SOCKET",
    "build-service reloads",
    "reload refused, everything stays as it was",
    "build-service stops",
    "a session did not end and is killed",  # once for each session, as the service stops
    "build-service stopped",
    "the log writer had ended and was started again",  # no caller has a signal for it, nor makes it fail
    "cannot tell who calls",  # SO_PEERCRED of a connected socket, which Linux always has
}
"""A line that is not here counts as an owner's: `by_caller`, `build`, `refusal`, or `by_callers` where nobody can tell
whose it is. Whoever adds one here says why no caller can have it repeated."""

LEVELS = {"error", "warn", "info", "debug", "trace"}


def free_lines(tree: ast.AST) -> set[str]:
    """The messages that are logged straight at a level; one that is no plain text is told as code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            if ast.unparse(node.func.value).rpartition(".")[2] in ("log", "_log") and node.args:
                first = node.args[0]
                found.add(str(first.value) if isinstance(first, ast.Constant) else ast.unparse(first))
    return found


def test_every_line_without_a_budget_is_one_that_no_caller_can_repeat() -> None:
    assert set().union(*map(free_lines, SHIPPED.parsed.values())) == FREE


def test_who_logs_straight_is_found() -> None:
    straight = 'self._service.log.warn("one", x=1)\nlog.error(f"two {x}")\nself._log.info("three")'
    assert free_lines(ast.parse(straight)) == {"one", "f'two {x}'", "three"}
    others = 'log.by_callers("warn", "one")\nlog.build(1, "info", "two")\nself._log("info", "three")'
    assert free_lines(ast.parse(others)) == set()
