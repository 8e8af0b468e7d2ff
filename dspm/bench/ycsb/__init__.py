"""A YCSB-compatible benchmark of key-value operations (Cooper et al., "Benchmarking cloud serving systems with YCSB",
SoCC 2010).

Workloads, key and request generators, the table and the summary are those of YCSB 0.17. Beyond it, clients are
processes that begin together, their operations are made ahead, the client's own ceiling is measured, and everything
acknowledged is read back afterwards.

`runner` and `compare` are the programmatic interface, `cli` the command `dspm ycsb`.
"""
