"""Lineage: what each stage was seen to read and write, at which versions, and what it is expected to.

Declared (`declared`, `expected`: from the code alone) and observed (`observed`, `events`: from runs) know nothing of
each other, so that they can disagree. `graph` walks what was observed, from the event file or from Marquez.
"""
