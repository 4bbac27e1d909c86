"""HAProxy: its configuration from settings, and its state as values.

Rules of the room: `hot`, `commands`, `actual`, `pages` and `render` are pure; `runtime`, `haproxy` and `launch` touch
the world. Nothing in here knows of route owners or epochs: what a route means was decided above.
"""
