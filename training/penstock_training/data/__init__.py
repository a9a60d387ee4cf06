"""Data from a lake: tables, pinned to a version, that become batches of tensors.

lake.py       what a run reads: a reference becomes a table, pinned
storage.py    where files lie: a path or any fsspec URL
delta.py, parquet.py   which files a version of a table has
table.py      a pinned table: its columns, its row groups, some of its rows
filters.py    which rows: an expression, pushed down to partitions, row groups and rows
columns.py    what a recipe expects of a column, and what is wrong with one
tensors.py    columns of Arrow as tensors
rows.py       random access by row number: in memory, memory-mapped, or a few row groups at a time
order.py      in which order an epoch reads rows, the same for any number of processes
"""
