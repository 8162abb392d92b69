"""The on-disk format of outputs: names, atomic writes, records, leases, commits and readers.

Nothing in this package loads Ray.
"""
