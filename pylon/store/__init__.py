"""The store: one SQLite file, one writing connection, and one module per family of rows.

Nobody outside this package writes SQL. What must be atomic together is one function here.
"""
