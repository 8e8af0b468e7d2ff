"""MongoDB on the store: a mongod that nobody patched, its files in the cluster (docs/mongodb.md).

Invariants: nothing durable lies in the native dbpath; at most one mongod owns a path, which the store sees to and not
this package; a user's own configuration of the engine is kept, or refused with the reason.
"""
