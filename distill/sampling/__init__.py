"""An engine kept full until every sample is stored. Imports `engines` and below."""
