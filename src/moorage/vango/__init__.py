"""Vango, as a host sees it: its files, its wire, its stored records, its variables. Pure knowledge, no I/O.

Everything here is a fact of the framework (v0.2.4), none a decision of the platform; other rooms decide with it.
"""
