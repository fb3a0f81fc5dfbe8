"""What decides: pure modules, values in and values out; no file, clock or socket. Each is tested without a process."""
