"""The verbs: one module per verb or verb family. Each parses its own flags, asks the API, says both answers.

A verb is `async def verb(call, ...) -> Exit | None`; its docstring is its help.
"""
