"""Starting work: child processes, process groups, launchers and CPU threads. Imports `storage` and below."""
