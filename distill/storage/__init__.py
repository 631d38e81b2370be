"""Files on disk: run folders and manifests, the ledger, finished traces, shards, the cache of facts. Imports `core`."""
