"""Archives for tests: honest ones out of a store, and forged ones that are consistent but for one thing."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moorage.artifacts.archive import HEADER, MANIFEST, TREE, archive_chunks
from moorage.artifacts.manifest import manifest_to_json
from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tar_blocks import END, member_header, padding
from moorage.domain.artifact import FileEntry, Manifest, Process, artifact_digest
from moorage.wire.message import canonical

SERVER = """
import http.server, os
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"carried " + os.environ["MOORAGE_DEPLOYMENT"].encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answers).serve_forever()
"""
FILES: Mapping[str, str] = {"app/app.py": SERVER, "app/empty.txt": "", "app/static/page.html": "<h1>carried</h1>\n"}
Member = tuple[bytes, bytes]  # header and content


def manifest_of(files: Mapping[str, str] = FILES, **changed: Any) -> Manifest:
    """The manifest of these files, all plain."""
    entries = [_entry(path, text.encode()) for path, text in sorted(files.items())]
    made = Manifest("carried", "python", Process("python app.py"), tuple(entries), source={"commit": "4f2a90c1d2e3"})
    return replace(made, **changed)


def _entry(path: str, content: bytes) -> FileEntry:
    return FileEntry(path, 0o644, len(content), hashlib.sha256(content).hexdigest())


def stored(store: ArtifactStore, work: Path, files: Mapping[str, str] = FILES, **changed: Any) -> str:
    """Put these files into a store; the digest."""
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    return store.put(work, manifest_of(files, **changed))


def honest(folder: Path, files: Mapping[str, str] = FILES, **changed: Any) -> bytes:
    """The archive of an artifact of these files, as the platform writes it."""
    store = ArtifactStore(folder / "store")
    return b"".join(archive_chunks(store, stored(store, folder / "stage", files, **changed)))


def forged(
    manifest: Manifest,
    contents: Mapping[str, str] = FILES,
    *,
    said: Mapping[str, object] | None = None,
    members: Callable[[list[Member]], Sequence[Member]] = lambda members: members,
    text: bytes | None = None,
) -> bytes:
    """An archive of this manifest, consistent as far as it can be: `said` changes what its first member says,
    `members` the members behind the manifest, `text` is written in place of the manifest's own."""
    text = manifest_to_json(manifest).encode() if text is None else text
    header = {
        "format": 1,
        "digest": artifact_digest(manifest),
        "manifest_bytes": len(text),
        "manifest_sha256": hashlib.sha256(text).hexdigest(),
    }
    made = [
        (
            member_header(TREE + entry.path, max(entry.size, 0), entry.mode & 0o777),
            contents.get(entry.path, "").encode(),
        )
        for entry in manifest.files
    ]
    first = canonical({**header, **(said or {})})
    front = [
        (member_header(HEADER, len(first), 0o644), first),
        (member_header(MANIFEST, len(text), 0o644), text),
    ]
    return b"".join(head + body + padding(len(body)) for head, body in (*front, *members(made))) + END


def odd_member(name: str, kind: bytes, to: str = "") -> Member:
    """A member of a tar that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, to, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT), b""


def flipped(data: bytes, at: int) -> bytes:
    """The same bytes but for one bit."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
