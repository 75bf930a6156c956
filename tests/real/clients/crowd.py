"""A crowd of local processes' connections at a port of this machine: crowd.py PORT CONNECTIONS [ADDRESS].

Most of it never makes a request. One in 40 does, and waits for what comes of it. With ADDRESS the port stands behind PROXY
headers: one in 8 begins a request from there, one in 40 makes one, and one in 1,000 does so from an address that no node has.
"""

import collections
import resource
import socket
import struct
import sys

# Fewer than wait in the kernel for somebody to accept them: whoever finds no room there tries again after a second.
AT_ONCE = 100
HEAD = b"GET /version HTTP/1.1\r\nHost: x\r\nA"
SAID = [
    b"",
    HEAD,
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00",
    b"\x16\x03\x01\x02\x00\x01",
    b"\xff" * 600,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def header(source: bytes) -> bytes:
    """A PROXY header, version 2."""
    addresses = source + bytes([100, 64, 0, 2]) + struct.pack("!HH", 40000, 443)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses


def words(number: int, address: str) -> tuple[bytes, bool]:
    """What this one says, and whether that is a request."""
    if not address:
        return (HEAD + b": b\r\n\r\n", True) if number % 40 == 7 else (SAID[number % len(SAID)], False)
    if number % 1000 == 7:
        nobody = bytes([100, 96, number >> 16, number // 1000 % 256])
        return header(nobody) + HEAD + b": b\r\n\r\n", True
    if number % 40 == 7:
        return header(socket.inet_aton(address)) + HEAD + b": b\r\n\r\n", True
    if number % 8 == 7:
        return header(socket.inet_aton(address)) + HEAD, False
    return SAID[number % len(SAID)], False


def meet(port: int, said: bytes) -> socket.socket:
    """One of the crowd, from where tailscaled's own connections come too."""
    visitor = socket.socket()
    # Reset, not left in TIME_WAIT.
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.settimeout(20)
    visitor.connect(("127.0.0.1", port))
    try:
        visitor.sendall(said)
    except (BrokenPipeError, ConnectionResetError):
        pass  # shown the door already
    return visitor


def answer(visitor: socket.socket) -> str:
    """The code of the answer, or that there was none."""
    try:
        return visitor.recv(12)[9:].decode() or "none"
    except ConnectionResetError:
        return "none"


def main() -> None:
    port, visitors, address = int(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    inside: list[socket.socket] = []
    asking: list[socket.socket] = []
    answers: collections.Counter[str] = collections.Counter()
    for number in range(visitors):
        said, asks = words(number, address)
        inside.append(meet(port, said))
        if asks:
            asking.append(inside[-1])
        if len(inside) == AT_ONCE or number == visitors - 1:
            answers.update(map(answer, asking))
            for visitor in inside:
                visitor.close()
            inside.clear()
            asking.clear()
    print(f"{visitors} connections, 200: {answers['200']}, 500: {answers['500']}, none: {answers['none']}, all: {answers.total()}")


main()
