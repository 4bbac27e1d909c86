"""Level-triggered reconcilers: each pass looks at what is committed and makes one kind of thing true."""
