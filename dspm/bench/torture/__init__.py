"""Torture: a cluster of real processes under faults, the history of what was said, its checker (docs/torture.md)."""
