"""Files on disk: run folders, manifests, the ledger, finished traces, shards and the cache of facts. Imports `core`."""
