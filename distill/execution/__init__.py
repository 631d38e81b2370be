"""How work is started: child processes, groups of them, launchers, CPU threads. Imports `storage` and below."""
