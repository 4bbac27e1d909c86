"""Steps from one schema to the next: `0002.sql` makes a database of schema 1 one of schema 2.

A step only adds (columns with a default, tables): code of the release before must run on its result.
"""
