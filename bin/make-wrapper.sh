#!/bin/sh
# Installed in a container's PATH before the real tool, as `make` (or linked as `ninja`, `cmake`): hands the build to
# the build service under its own name. With BUILD_SERVICE_FALLBACK=local the client runs the real tool, the next of
# that name on PATH, when there is no service to connect to, no Python to do it with, or when the service says, before
# anything runs, that the directory or the command is none of its own.
tool=${0##*/}
[ "$tool" = make-wrapper.sh ] && tool=make
[ "$BUILD_SERVICE_FALLBACK" = local ] || exec build-cli "$tool" "$@"

real=
IFS=:
set -f
for directory in $PATH; do
    candidate=${directory:-.}/$tool
    if [ "$candidate" -ef "$0" ]; then
        real= # What stands before this wrapper, or is this wrapper, is not further along.
    elif [ -z "$real" ] && [ -f "$candidate" ] && [ -x "$candidate" ]; then
        real=$candidate
    fi
done
[ -n "$real" ] || exec build-cli "$tool" "$@"
command -v build-cli >/dev/null 2>&1 || exec "$real" "$@"
exec build-cli --fallback "$real" "$tool" "$@"
