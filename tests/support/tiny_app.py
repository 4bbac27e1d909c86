"""The smallest app there can be: one file that listens within some milliseconds and says who answers.

`GET /` answers with JSON: app, deployment, allocation, environment, pid, `text` of its source, and how many requests
it was asked before. An upgrade is accepted and kept until the client leaves. While the file `broken` exists it does
not start.
"""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """
import _thread, os, socket, sys
TEXT, BROKEN = {text!r}, {broken!r}
if BROKEN and os.path.exists(BROKEN):
    sys.exit("broken on purpose")
NAMES = ("app", "deployment", "allocation", "environment")
WHO = ",".join('"%s":"%s"' % (name, os.environ["MOORAGE_" + name.upper()]) for name in NAMES)
asked = 0

def accepted(head):
    import base64, hashlib
    key = next(line for line in head.split(b"\\r\\n") if line.lower().startswith(b"sec-websocket-key:"))
    text = key.split(b":", 1)[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text).digest())

def serve(client):
    global asked
    try:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        if b"websocket" in head.lower():
            client.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                           b"Sec-WebSocket-Accept: " + accepted(head) + b"\\r\\n\\r\\n")
            while client.recv(65536):
                pass
            return
        if not head.startswith(b"GET /healthz"):
            asked += 1
        body = ('{{%s,"pid":%d,"text":"%s","asked":%d}}' % (WHO, os.getpid(), TEXT, asked)).encode()
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n"
                       b"Connection: close\\r\\n\\r\\n" % len(body) + body)
    except OSError:
        pass
    finally:
        client.close()

server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((os.environ["HOST"], int(os.environ["PORT"])))
server.listen(1024)
while True:
    _thread.start_new_thread(serve, (server.accept()[0],))
"""


def tiny_app(folder: Path, name: str, *, text: str = "", broken: Path | None = None, toml: str = "") -> Path:
    """Write the app's source into `folder` (made if need be, written over otherwise). `toml` goes to the end of its
    `moorage.toml`."""
    folder.mkdir(parents=True, exist_ok=True)
    process = '[process]\ncommand = "python -S app.py"\nhealth = "/healthz"\nstop_grace_s = 1\n'
    (folder / "moorage.toml").write_text(f'name = "{name}"\n{process}{toml}')
    (folder / "app.py").write_text(_PROGRAM.format(text=text, broken=str(broken or "")))
    return folder
