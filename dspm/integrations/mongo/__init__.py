"""MongoDB, and other WiredTiger programs, with their files in the cluster (docs/mongodb.md).

Invariant: a user's own configuration of the engine is kept, or refused with the reason.
"""
