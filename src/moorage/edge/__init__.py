"""The edge room: a copy of the route table, and HAProxy kept in step with it.

Rules of the room: the table (`table`) and the plan (`plan`) are pure; the proxy behind its runtime socket lives in
`proxy`; `agent` is the loop. The edge owns no truth: everything here can be thrown away and is rebuilt from the control
plane's signed snapshot. No Python is on the path of a request.
"""
