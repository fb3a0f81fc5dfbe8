"""buildcore: run a build on the host for a caller in a container, as that caller.

The map, from the bottom; a module imports only from the layers below its own:

  errors                                            one base class
  protocol  jsontext  jsonplain  arguments  policy
  settings  text  limiter                           pure: values in, values out
  linux  signals  processes                         single system calls and facts
  config  paths  identity  supervisor  logs  cgroups
  listener  notify  origin  reload  subids          each one part of the operating system
  client  doctor  link  proof  session  server      the two sides of the socket
  build_cli  build_ctl  build_service               the commands

Another program uses `buildcore.client` to run builds, and any lower module on its own. Importing the package
itself imports none of them: what a program does not use costs it nothing.
"""

__version__ = "0.1.0"
