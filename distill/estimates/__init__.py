"""Time, memory and money that each kind of work takes, before it runs. Imports `training` and below."""
