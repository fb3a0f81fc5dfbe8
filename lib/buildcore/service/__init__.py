"""The daemon, who runs as root: `main` starts the `arbiter`, which forks a `session` for each caller."""
