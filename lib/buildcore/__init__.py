"""buildcore: run a build on the host for a caller in a container, as that caller.

The map. A module's floor is its folder, and imports lead downward only:

  service   the daemon, who runs as root       caller    the caller's side: the client and the commands
  system    one part of the operating system each
  core      what decides: values in, values out

service and caller stand side by side and meet over the socket alone. Importing a package imports none of its modules:
what a program does not use costs it nothing. What other programs may rely on: docs/LIBRARY.md.
"""

__version__ = "0.1.0"
