"""Estimates of the time, memory and money that each stage takes, before it runs. Imports `training` and below."""
