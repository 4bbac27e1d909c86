"""The runner of a host: brings its allocations and session stores to the desired state and reports what it sees.

It decides nothing about routes. An allocation that ended is reported and never started again. Allocations and stores
outlive a runner that dies: the next one adopts them by pid and start time.
"""
