"""The command lines of the tools that are known by name, a module for each: the paths in them, found as the tool finds
them, and the ways that it goes. `buildcore.core.arguments` has the table of them and is what others call."""
