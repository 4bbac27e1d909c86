"""The transport of the log: from the control plane's outbox through JetStream to the edges.

Rules of the room: nothing in JetStream is an authority. The relay can build the stream anew from the outbox at any
time, and an edge that misses something learns it from the control plane. The stream's sequence is the log's index, so
a gap is a comparison of integers. A publish that timed out is unknown: compare, then go on.
"""
