"""A crowd of people on a Vango app: what a browser does, without a browser, and what each of them saw."""
