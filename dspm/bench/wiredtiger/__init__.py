"""A WiredTiger library of this machine, called in process: what the YCSB binding and `dspm bench wiredtiger` stand on.

WiredTiger is never part of dspm, and nothing of dspm links it: `library` finds one that is installed and declares the
few calls that are made, `database` opens a path in the cluster or in a directory and works with one table.
"""
