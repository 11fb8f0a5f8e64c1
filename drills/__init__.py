"""Drills: real faults put where they really come from, real DAG runs, and a look at who stopped them.

They stand outside the rooms, as the tests and the benchmarks do: no drill calls a gate, it only reads the ledger.
"""
