"""Ask the agent's socket: `python -m broker.agent.probe SOCKET /startz`, from a probe; `/quit` ends it, from a job."""

import socket
import sys

_SECONDS = 5.0


def probe(path: str, asked: str) -> int:
    """Return 0 if the agent answers with success, else 1; print its answer."""
    method = "POST" if asked == "/quit" else "GET"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(path)
            connection.sendall(f"{method} {asked} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError as error:
            sys.stderr.write(f"{path}: {error.strerror or error}\n")
            return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode("utf-8", "replace"))
    return 0 if head.split(b" ")[1:2] and head.split(b" ")[1].startswith(b"2") else 1


if __name__ == "__main__":
    sys.exit(probe(*sys.argv[1:3]))
