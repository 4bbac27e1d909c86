module variants // a module of its own, so that the tools of the board do not look in here
