"""Every limit of the platform, named, unit last, with its reason. Relations between limits hold at import."""

from __future__ import annotations

# Names and API
NAME_LENGTH_MAX_CHARS = 40  # leaves room for `<number>--` in front within one 63-octet DNS label
API_BODY_MAX_BYTES = 1 << 20  # every JSON body of the API; sources have a limit of their own
IDEMPOTENCY_KEY_MAX_CHARS = 128
IDEMPOTENCY_KEPT_S = 24 * 3600
SECRET_VALUE_MAX_BYTES = 64 << 10
LONG_POLL_MAX_S = 25.0  # below the usual 30 s idle limit of proxies in between
OPERATIONS_LISTED_MAX_COUNT = 200

# Source and artifact
SOURCE_FILES_MAX_COUNT = 20_000
SOURCE_TOTAL_MAX_BYTES = 512 << 20
SOURCE_FILE_MAX_BYTES = 128 << 20
SOURCE_PATH_MAX_CHARS = 512
BUILD_TIMEOUT_S = 900.0
ARTIFACT_FILES_MAX_COUNT = 200_000

# Allocations
APP_PORT_FIRST = 20_000  # below the kernel's ephemeral range (32768 on Linux), so no client socket takes one
APP_PORT_LAST = 29_999
READY_TIMEOUT_S = 60.0
READY_PROBE_PERIOD_S = 0.05
STOP_GRACE_S = 10.0  # SIGTERM to SIGKILL
LOG_FILE_MAX_BYTES = 16 << 20
LOG_TAIL_LINES_COUNT = 20
RESTART_BACKOFF_FIRST_S = 0.5
RESTART_BACKOFF_MAX_S = 30.0
PREVIEWS_KEPT_COUNT = 3  # per app; each costs a process and a store

# Operations and promotion
LEASE_S = 15.0
LEASE_RENEW_S = 5.0
EDGE_ACK_TIMEOUT_S = 15.0
EDGE_LIVE_WITHIN_S = 5.0  # an edge that has not reported for this long is named as lagging, not waited for
BAKE_S = 0.5
DRAIN_DEADLINE_S = 3600.0

# Hand-over
STORED_WAIT_S = 3.0  # without any progress
STORED_WAIT_MAX_S = 10.0
SETTLE_WAIT_S = 45.0
STORED_SETTLE_WAIT_S = 90.0  # a client that comes back late, and then the 30 s tick within which its resume shows
LET_GO_PER_S = 250  # inputs ended a second: whoever is cut in the same instant comes back in the same instant
LET_GO_WITHIN_S = 0.75  # of the second that a client waits before its first retry; fence and admission need the rest
HOLD_BUDGET_S = 20.0  # a reconnect is held no longer than this, then answered 503 with Retry-After
ADMISSION_PER_S = 500
LIVE_COUNT_FRESH_S = 60.0  # past this age an acknowledged count of live sessions is asked again

# Edge
REPORT_PERIOD_S = 1.0
SNAPSHOT_STALE_MAX_S = 3600.0  # an edge that cannot verify anything newer keeps its table this long
SLOTS_PER_ROUTE_MAX_COUNT = 63
LOG_PAGE_MAX_COUNT = 1000

assert LEASE_RENEW_S * 2 < LEASE_S, "a lease must survive one lost renewal"
assert STORED_WAIT_S <= STORED_WAIT_MAX_S < HOLD_BUDGET_S, "reconnects must be held longer than the store is waited for"
assert REPORT_PERIOD_S * 2 < EDGE_LIVE_WITHIN_S, "one lost report does not make an edge lag"
assert APP_PORT_LAST < 32768, "app ports lie below the ephemeral range"
