"""The operating system, one part of it a module. None imports another, save `linux`, `signals` and the processes'."""
