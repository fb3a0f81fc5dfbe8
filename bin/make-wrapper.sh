#!/bin/sh
# Installed in a container's PATH before the real tool, as `make` (or linked as `gmake`, `cmake`): hands the build to
# the build service under its own name. With BUILD_SERVICE_FALLBACK=local the client runs the real tool, the next of
# that name on PATH, when there is no service to connect to, no Python to do it with, or when the service says, before
# anything runs, that the directory or the command is none of its own.
tool=${0##*/}
[ "$tool" = make-wrapper.sh ] && tool=make
[ "$BUILD_SERVICE_FALLBACK" = local ] || exec build-cli "$tool" "$@"

real=
IFS=:
set -f
search() {
    for directory in $PATH; do
        candidate=${directory:-.}/$1
        if [ "$candidate" -ef "$0" ]; then
            real= # What stands before this wrapper, or is this wrapper, is not further along.
        elif [ -z "$real" ] && [ -f "$candidate" ] && [ -x "$candidate" ]; then
            real=$candidate
        fi
    done
}
search "$tool"
[ -n "$real" ] || [ "$tool" != gmake ] || search make # Not every image has GNU make by both names.
[ -n "$real" ] || exec build-cli "$tool" "$@"
command -v build-cli >/dev/null 2>&1 || exec "$real" "$@"
exec build-cli --fallback "$real" "$tool" "$@"
