"""Signatures of stored records: whose secret a record bears, and the same record under another secret.

Records of sessions (`VNGO`) and of global state (`VGGS`) end in an HMAC-SHA256 over all that stands before it. An app
reads what bears its present or its previous secret; it treats anything else as cold, and deletes it when it is global
state. Before a value drops out of both, what still bears it is signed anew: content, times and expiry stay.
"""

from __future__ import annotations

import hashlib
import hmac

_MAGIC = (b"VNGO", b"VGGS")
_SIGNATURE_BYTES = 32


def signed_anew(record: bytes, present: str, previous: str) -> bytes | None:
    """The record under the present secret when it bears the previous one (both in hexadecimal digits); None when it
    needs nothing, or is no record of the framework."""
    body, signature = record[:-_SIGNATURE_BYTES], record[-_SIGNATURE_BYTES:]
    if not body.startswith(_MAGIC) or not hmac.compare_digest(signature, _signature(body, previous)):
        return None
    return body + _signature(body, present)


def _signature(body: bytes, secret: str) -> bytes:
    return hmac.digest(bytes.fromhex(secret), body, hashlib.sha256)
