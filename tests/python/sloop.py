"""A client for sloop in Python, standard library only, written from docs/PROTOCOL.md alone.

    with Client("127.0.0.1:7600") as client:
        client.put(b"greeting", b"hello")
        found = client.get(b"greeting")
        assert found.values() == [b"hello"]
        client.put(b"greeting", b"hello again", context=found.context)

It blocks, and one thread uses it at a time. `pipeline` sends many calls at once.
"""

import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

MAGIC = b"SLOP"
VERSION = 1
GET, PUT, DELETE, SIBLINGS, KEYS, MANY, PING, INFO, RING = range(0x01, 0x0A)
FOUND, WRITTEN, COPIES, PAGE, MANY_OUTCOMES, PONG = 0x81, 0x82, 0x84, 0x85, 0x86, 0x87
INFO_ANSWER, RING_ANSWER, FAILURE = 0x88, 0x89, 0xFF
STRICT, RETRY = 1, 2

# Causality of a write: a context, or one of these two.
BLIND, SIBLING = object(), object()


class ProtocolError(Exception):
    """The node sent bytes that the document does not allow, or closed the connection."""


class Failure(Exception):
    """The node refused, or could not."""

    def __init__(self, code, first, second, text):
        super().__init__(f"{text} (code {code})")
        self.code, self.first, self.second, self.text = code, first, second, text

    @property
    def nothing_written(self):
        return self.code < 200


@dataclass(frozen=True)
class Dot:
    actor: int
    counter: int


@dataclass(frozen=True)
class Level:
    n: int
    quorum: int
    owners: int
    fallbacks: int
    hedged: bool


@dataclass(frozen=True)
class Sibling:
    dot: Dot
    written_at: int
    value: bytes


@dataclass(frozen=True)
class Found:
    level: Level
    context: bytes
    siblings: list

    def values(self):
        return [sibling.value for sibling in self.siblings]


@dataclass(frozen=True)
class Written:
    level: Level
    remembered: bool
    dot: Dot
    written_at: int
    context: bytes
    superseded: list


@dataclass(frozen=True)
class Copy:
    dot: Dot
    node: str
    written_at: int
    operation: bytes
    value: bytes | None


@dataclass(frozen=True)
class Copies:
    context: bytes
    copies: list


@dataclass(frozen=True)
class Page:
    more: bool
    keys: list


@dataclass(frozen=True)
class Welcome:
    version: int
    features: int
    cluster: int
    core: int
    cores: int
    salt: int
    partitions: int
    request_bytes: int
    answer_bytes: int
    in_flight: int
    node: str


@dataclass(frozen=True)
class Info:
    name: str
    version: str
    cluster: int
    cores: int
    core: int
    salt: int
    partitions: int
    uptime_ms: int


@dataclass(frozen=True)
class Node:
    id: int
    name: str
    address: tuple
    cores: int
    salt: int
    up: bool


@dataclass(frozen=True)
class Ring:
    number: int
    hash: int
    partitions: int
    copies: int
    nodes: list
    owners: list | None


class Reader:
    """Takes fields from the front of a message."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if len(self.data) - self.at < length:
            raise ProtocolError(f"{length} bytes are needed, {len(self.data) - self.at} are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return int.from_bytes(self.take(2), "little")

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def u128(self):
        return int.from_bytes(self.take(16), "little")

    def bytes16(self):
        return self.take(self.u16())

    def bytes32(self):
        return self.take(self.u32())

    def text16(self):
        return self.bytes16().decode("utf-8")

    def flag(self):
        flags = self.u8()
        if flags > 1:
            raise ProtocolError(f"unknown flags {flags:#x}")
        return flags == 1

    def list(self, read):
        return [read() for _ in range(self.u32())]

    def end(self):
        if self.at != len(self.data):
            raise ProtocolError(f"{len(self.data) - self.at} bytes are left over")

    def dot(self):
        return Dot(self.u64(), self.u64())

    def level(self):
        return Level(self.u8(), self.u8(), self.u8(), self.u8(), self.flag())

    def sibling(self):
        return Sibling(self.dot(), self.u64(), self.bytes32())

    def copy(self):
        dot, node, written_at, operation = self.dot(), self.text16(), self.u64(), self.bytes16()
        return Copy(dot, node, written_at, operation, self.bytes32() if self.flag() else None)

    def address(self):
        family = self.u8()
        if family not in (4, 6):
            raise ProtocolError(f"unknown family of an address {family}")
        return ipaddress.ip_address(self.take(4 if family == 4 else 16)), self.u16()

    def node(self):
        return Node(self.u64(), self.text16(), self.address(), self.u16(), self.u64(), self.flag())

    def ring(self):
        number, hash, partitions, copies = self.u64(), self.u64(), self.u16(), self.u8()
        nodes = self.list(self.node)
        return Ring(number, hash, partitions, copies, nodes, self.list(self.u16) if self.flag() else None)

    def failure(self):
        return Failure(self.u16(), self.u64(), self.u64(), self.text16())

    def outcome(self, kind=None):
        """One answer of any kind. A failure is returned, not raised."""
        kind = self.u8() if kind is None else kind
        if kind == FOUND:
            return Found(self.level(), self.bytes32(), self.list(self.sibling))
        if kind == WRITTEN:
            level, remembered = self.level(), self.flag()
            return Written(level, remembered, self.dot(), self.u64(), self.bytes32(), self.list(self.dot))
        if kind == COPIES:
            return Copies(self.bytes32(), self.list(self.copy))
        if kind == PAGE:
            return Page(self.flag(), self.list(self.bytes16))
        if kind == MANY_OUTCOMES:
            return self.list(self.outcome)
        if kind == PONG:
            return None
        if kind == INFO_ANSWER:
            return Info(self.text16(), self.text16(), self.u128(), self.u16(), self.u16(), self.u64(), self.u16(), self.u64())
        if kind == RING_ANSWER:
            return self.ring()
        if kind == FAILURE:
            return self.failure()
        raise ProtocolError(f"unknown kind of answer {kind:#x}")


def bytes16(data):
    return struct.pack("<H", len(data)) + data


def bytes32(data):
    return struct.pack("<I", len(data)) + data


def terms(quorum=0, strict=False, retry=False, deadline_ms=0):
    flags = (STRICT if strict else 0) | (RETRY if retry else 0)
    return struct.pack("<BBI", quorum, flags, deadline_ms)


def causality(context):
    if context is BLIND:
        return b"\0"
    if context is SIBLING:
        return b"\1"
    return b"\2" + bytes32(context)


def get(key, **options):
    return GET, bytes16(key) + terms(**options)


def put(key, value, context=BLIND, operation=b"", **options):
    return PUT, bytes16(key) + terms(**options) + causality(context) + bytes16(operation) + bytes32(value)


def delete(key, context=BLIND, operation=b"", **options):
    return DELETE, bytes16(key) + terms(**options) + causality(context) + bytes16(operation)


def siblings(key):
    return SIBLINGS, bytes16(key)


def keys(prefix=b"", after=b"", limit=1000):
    return KEYS, bytes16(prefix) + bytes16(after) + struct.pack("<H", limit)


def many(calls):
    return MANY, struct.pack("<I", len(calls)) + b"".join(bytes([kind]) + body for kind, body in calls)


def ping():
    return PING, b""


def info():
    return INFO, b""


def ring(number=0, hash=0):
    return RING, struct.pack("<QQ", number, hash)


class Client:
    def __init__(self, addr, token=b"", core=0xFFFF, timeout=10):
        host, _, port = addr.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last = 0
        try:
            self.welcome = self._shake_hands(token, core)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def _shake_hands(self, token, core):
        body = struct.pack("<HHQBH", VERSION, VERSION, 0, 0, core) + bytes16(token)
        self.socket.sendall(MAGIC + bytes16(body))
        if (magic := self._receive(4)) != MAGIC:
            raise ProtocolError(f"this is no sloop node: {magic!r}")
        reader = Reader(self._receive(int.from_bytes(self._receive(2), "little")))
        if reader.u8() != 0:
            raise reader.failure()
        numbers = reader.u16, reader.u64, reader.u128, reader.u16, reader.u16, reader.u64, reader.u16
        limits = reader.u32, reader.u32, reader.u32
        return Welcome(*(read() for read in numbers + limits), reader.text16())

    def _receive(self, length):
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(min(length - len(data), 1 << 20))
            if not more:
                raise ProtocolError("the node closed the connection")
            data += more
        return bytes(data)

    def send(self, call):
        """Sends one call and returns its id; `receive` gets the answer."""
        kind, body = call
        self.last += 1
        self.socket.sendall(struct.pack("<IQB", 9 + len(body), self.last, kind) + body)
        return self.last

    def receive(self):
        """The next answer, whichever call it belongs to: (id, answer)."""
        length = int.from_bytes(self._receive(4), "little")
        if not 9 <= length <= self.welcome.answer_bytes:
            raise ProtocolError(f"a frame of {length} bytes")
        reader = Reader(self._receive(length))
        call, kind = reader.u64(), reader.u8()
        answer = reader.outcome(kind)
        reader.end()
        if call == 0:
            raise answer
        return call, answer

    def pipeline(self, calls):
        """Sends calls without waiting, as many at once as the node takes; answers in the order of the calls."""
        sent, answers = [], {}
        for call in calls:
            while len(sent) - len(answers) >= self.welcome.in_flight:
                answers.update([self.receive()])
            sent.append(self.send(call))
        while len(answers) < len(sent):
            answers.update([self.receive()])
        return [answers[call] for call in sent]

    def ask(self, call):
        [answer] = self.pipeline([call])
        if isinstance(answer, Failure):
            raise answer
        return answer

    def get(self, key, **options):
        return self.ask(get(key, **options))

    def put(self, key, value, **options):
        return self.ask(put(key, value, **options))

    def delete(self, key, **options):
        return self.ask(delete(key, **options))

    def siblings(self, key):
        return self.ask(siblings(key))

    def many(self, calls):
        return self.ask(many(calls))

    def keys(self, prefix=b"", limit=1000):
        """All keys with this prefix, page by page."""
        after = b""
        while True:
            page = self.ask(keys(prefix, after, limit))
            yield from page.keys
            if not page.more:
                return
            after = page.keys[-1]

    def ping(self):
        return self.ask(ping())

    def info(self):
        return self.ask(info())

    def ring(self, number=0, hash=0):
        return self.ask(ring(number, hash))


def operation():
    """A name for a write, so that a retry of it is the same write."""
    return os.urandom(8).hex().encode()
