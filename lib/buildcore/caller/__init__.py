"""The caller's side: the `client` and the commands, on any machine. They meet the service over the socket alone."""
