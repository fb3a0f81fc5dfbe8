"""The one base class of every error that this library raises on purpose.

Every module derives its own error from `BuildError`, so that a caller can catch one module's errors or all
of them. `str(error)` is the one line that a user is shown; it never holds a newline or a traceback.
"""


class BuildError(Exception):
    """A refusal or a failure with one line for the user and a short word, `kind`, for programs."""

    kind = "internal"

    beside = False
    """Whether it says that a request is none of the service's business, so that its caller may do without: its
    directory is not in the workspace, or its command not allowed."""
