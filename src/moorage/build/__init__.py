"""From source to artifact: fetch, unpack, build, validate, store.

Rules of the room: `plan` decides (pure); the others act on one work folder that is gone afterwards. Tools run in a
group of their own, with a short environment, a deadline and bounded output; build-scope secrets are all they get, and
those never appear in what is reported. A build never starts the app, runs no migration and touches nothing but its
folder and the artifact store.
"""
