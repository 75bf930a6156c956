"""A crowd at a port of this machine that stands behind PROXY headers: crowd.py PORT CONNECTIONS ADDRESS.

Most of it never makes a request. One in 8 begins one from ADDRESS, one in 40 makes one, and of 10,000 one does so from an
address that no node has: tailscaled looks for such a one for long, and for nobody else meanwhile.
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
    if number % 10000 == 7:
        nobody = bytes([100, 96, number >> 16, number // 10000])
        return header(nobody) + HEAD + b": b\r\n\r\n", True
    if number % 40 == 7:
        return header(socket.inet_aton(address)) + HEAD + b": b\r\n\r\n", True
    if number % 8 == 7:
        return header(socket.inet_aton(address)) + HEAD, False
    return SAID[number % len(SAID)], False


def meet(port: int, number: int, said: bytes) -> socket.socket:
    """One of the crowd. Its address is its own, for there are fewer ports than visitors."""
    visitor = socket.socket()
    visitor.bind((f"127.0.{1 + number // 10000}.1", 0))
    # Reset, not left in TIME_WAIT.
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.settimeout(20)
    visitor.connect(("127.0.0.1", port))
    try:
        visitor.sendall(said)
    except (BrokenPipeError, ConnectionResetError):
        pass  # shown the door already
    return visitor


def main() -> None:
    port, visitors, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    inside: list[socket.socket] = []
    asking: list[socket.socket] = []
    answers: collections.Counter[str] = collections.Counter()
    for number in range(visitors):
        said, asks = words(number, address)
        inside.append(meet(port, number, said))
        if asks:
            asking.append(inside[-1])
        if len(inside) == AT_ONCE or number == visitors - 1:
            answers.update(visitor.recv(12)[9:].decode() for visitor in asking)
            for visitor in inside:
                visitor.close()
            inside.clear()
            asking.clear()
    print(f"{visitors} connections, 200: {answers.pop('200', 0)}, 500: {answers.pop('500', 0)}, else: {dict(answers)}")


main()
