"""What a kernel held, made durable.

The namespace after each cell is captured as a `Delta` (`capture`), its bytes lie in
content-addressed `objects`, a run's `journal` says which step committed what, and `restore` brings
a namespace back exactly. `catalog` is a DuckDB index of the journals, `doctor` and `prune` keep the
store. The package knows no notebook and no user interface.
"""
