"""Holds a running node to docs/PROTOCOL.md: the whole conversation, good and bad.

    python3 tests/python/check.py 127.0.0.1:7600 [TOKEN]

Every check uses keys of its own, so it may run twice on one node. It prints a line a check and ends with 0 when all hold.
"""

import os
import socket
import struct
import sys
import traceback

import sloop
from sloop import BLIND, SIBLING, Client, Failure, ProtocolError

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def fresh(name="key"):
    return name.encode() + b":" + os.urandom(8)


def fails(code, action):
    try:
        action()
    except Failure as failure:
        assert failure.code == code, f"code {code} was expected, not {failure.code}: {failure}"
        assert failure.text, "a failure says something"
        return failure
    raise AssertionError(f"a failure of code {code} was expected")


def closed(action):
    try:
        action()
    except (ProtocolError, ConnectionError):
        return
    raise AssertionError("the node was expected to close the connection")


@check
def the_welcome_says_who_answers(connect):
    with connect() as client:
        welcome, info = client.welcome, client.info()
        assert welcome.version == 1
        assert welcome.core < welcome.cores
        assert welcome.partitions & (welcome.partitions - 1) == 0
        assert 10 * 1024 * 1024 < welcome.request_bytes < welcome.answer_bytes
        assert welcome.in_flight >= 1
        assert (info.name, info.cluster) == (welcome.node, welcome.cluster)
        assert (info.core, info.cores) == (welcome.core, welcome.cores)
        assert (info.salt, info.partitions) == (welcome.salt, welcome.partitions)
        assert info.version and info.uptime_ms >= 0


@check
def the_ring_says_who_owns_what(connect):
    with connect() as client:
        ring = client.ring()
        assert ring.partitions == client.welcome.partitions and 1 <= ring.copies <= len(ring.nodes)
        assert len(ring.owners) == ring.partitions * ring.copies
        assert all(owner < len(ring.nodes) for owner in ring.owners)
        [me] = [node for node in ring.nodes if node.name == client.welcome.node]
        assert me.up and (me.cores, me.salt) == (client.welcome.cores, client.welcome.salt)
        known = client.ring(ring.number, ring.hash)
        assert known.owners is None and known.nodes == ring.nodes


@check
def every_core_can_be_asked_for_and_serves_every_key(connect):
    with connect() as client:
        cores, key = client.welcome.cores, fresh()
        client.put(key, b"1")
    for core in range(cores):
        with connect(core=core) as client:
            assert client.welcome.core < cores
            assert client.get(key).values() == [b"1"]


@check
def ping(connect):
    with connect() as client:
        assert client.ping() is None


@check
def put_get_delete(connect):
    with connect() as client:
        key = fresh()
        absent = client.get(key)
        assert absent.values() == []
        first = client.put(key, b"1")
        assert first.superseded == [] and not first.remembered and first.written_at > 0
        assert first.level.quorum <= first.level.owners + first.level.fallbacks
        second = client.put(key, b"2")
        assert second.superseded == [first.dot]
        found = client.get(key)
        assert found.values() == [b"2"] and found.siblings[0].dot == second.dot
        assert found.siblings[0].written_at == second.written_at
        assert client.delete(key).superseded == [second.dot]
        gone = client.get(key)
        assert gone.values() == []
        assert client.delete(fresh()).superseded == []


@check
def keys_and_values_are_any_bytes(connect):
    with connect() as client:
        for key in [fresh()[:1] + bytes(range(256)), fresh() + b"/../%2f\n", fresh() + b"k" * 1000]:
            for value in [b"", b"\0", bytes(range(256)) * 5, os.urandom(100_000)]:
                client.put(key, value)
                assert client.get(key).values() == [value]


@check
def the_largest_value_and_key_fit(connect):
    with connect() as client:
        key, value = fresh().ljust(1024, b"k"), os.urandom(1024) * 10 * 1024
        client.put(key, value)
        assert client.get(key).values() == [value]
        client.delete(key)


@check
def concurrent_writes_are_siblings_until_one_that_saw_them(connect):
    with connect() as client:
        key = fresh()
        client.put(key, b"old")
        context = client.get(key).context
        client.put(key, b"a", context=context)
        client.put(key, b"b", context=context)
        both = client.get(key)
        assert sorted(both.values()) == [b"a", b"b"]
        third = client.put(key, b"c", context=SIBLING)
        assert third.superseded == []
        merged = client.put(key, b"ab", context=both.context)
        assert sorted(merged.superseded, key=repr) == sorted((s.dot for s in both.siblings), key=repr)
        assert sorted(client.get(key).values()) == [b"ab", b"c"]
        client.put(key, b"all", context=client.get(key).context)
        assert client.get(key).values() == [b"all"]


@check
def a_delete_with_a_context_spares_what_it_has_not_seen(connect):
    with connect() as client:
        key = fresh()
        client.put(key, b"seen")
        context = client.get(key).context
        client.put(key, b"unseen", context=SIBLING)
        client.delete(key, context=context)
        assert client.get(key).values() == [b"unseen"]


@check
def the_context_of_a_write_serves_the_next_one(connect):
    with connect() as client:
        key = fresh()
        written = client.put(key, b"1", context=client.get(key).context)
        written = client.put(key, b"2", context=written.context)
        assert client.get(key).values() == [b"2"]
        client.delete(key, context=written.context)
        assert client.get(key).values() == []


@check
def one_that_has_seen_an_absent_key_replaces_nothing(connect):
    with connect() as client:
        key = fresh()
        absent = client.get(key)
        client.put(key, b"first", context=absent.context)
        client.put(key, b"second", context=absent.context)
        assert sorted(client.get(key).values()) == [b"first", b"second"]


@check
def contexts_are_checked(connect):
    with connect() as client:
        key, other = fresh(), fresh()
        client.put(key, b"1")
        client.put(other, b"1")
        context = client.get(key).context
        fails(13, lambda: client.put(other, b"2", context=context))
        fails(10, lambda: client.put(key, b"2", context=context[:-1] + bytes([context[-1] ^ 1])))
        fails(10, lambda: client.delete(key, context=b"\1nonsense"))
        fails(11, lambda: client.put(key, b"2", context=b"\xee" + context[1:]))
        fails(10, lambda: client.put(key, b"2", context=b""))
        assert client.get(key).values() == [b"1"]


@check
def an_operation_is_done_once(connect):
    with connect() as client:
        key, operation = fresh(), sloop.operation()
        first = client.put(key, b"1", operation=operation)
        client.put(key, b"2", context=first.context)
        again = client.put(key, b"1", operation=operation, retry=True)
        assert again.remembered and not first.remembered
        assert (again.dot, again.written_at, again.superseded) == (first.dot, first.written_at, first.superseded)
        assert client.get(key).values() == [b"2"]
        fails(30, lambda: client.put(key, b"other", operation=operation))
        fails(30, lambda: client.delete(key, operation=operation))
        assert not client.put(fresh(), b"1", operation=operation).remembered, "ids count by key"
        gone = sloop.operation()
        assert client.delete(key, operation=gone).dot == client.delete(key, operation=gone, retry=True).dot


@check
def siblings_tell_the_story(connect):
    with connect() as client:
        key, operation = fresh(), sloop.operation()
        assert client.siblings(key).copies == []
        first = client.put(key, b"1", operation=operation)
        second = client.put(key, b"2", context=SIBLING)
        copies = client.siblings(key)
        by_dot = {copy.dot: copy for copy in copies.copies}
        assert set(by_dot) == {first.dot, second.dot}
        assert (by_dot[first.dot].value, by_dot[first.dot].operation) == (b"1", operation)
        assert (by_dot[second.dot].value, by_dot[second.dot].operation) == (b"2", b"")
        assert all(copy.node == client.welcome.node for copy in copies.copies)
        client.delete(key, context=copies.context)
        [tombstone] = client.siblings(key).copies
        assert tombstone.value is None and tombstone.written_at > 0


@check
def a_batch_answers_each_request_in_order(connect):
    with connect() as client:
        names = [fresh() for _ in range(50)]
        written = client.many([sloop.put(name, name) for name in names])
        assert all(isinstance(one, sloop.Written) for one in written)
        mixed = [sloop.get(names[0]), sloop.put(names[1], b"new", context=b"\1bad"), sloop.get(fresh()), sloop.get(names[2])]
        one, two, three, four = client.many(mixed)
        assert one.values() == [names[0]] and three.values() == [] and four.values() == [names[2]]
        assert isinstance(two, Failure) and two.code == 10
        assert client.many([]) == []
        assert [found.values() for found in client.many([sloop.get(name) for name in names])] == [[name] for name in names]


@check
def a_batch_is_bounded_and_holds_no_other_kinds(connect):
    with connect() as client:
        fails(1, lambda: client.many([sloop.siblings(b"a long enough key")] * 3))
        fails(1, lambda: client.many([sloop.get(b"k")] * 1025))
        assert len(client.many([sloop.get(b"k")] * 1024)) == 1024


@check
def an_outcome_that_does_not_fit_in_a_frame_is_refused_in_its_place(connect):
    with connect() as client:
        names, value = [fresh() for _ in range(8)], bytes(10 * 1024 * 1024)
        for name in names:
            client.put(name, value)
        outcomes = client.many([sloop.get(name) for name in names])
        codes = [outcome.code if isinstance(outcome, Failure) else 0 for outcome in outcomes]
        assert codes == [0] * 6 + [203] * 2, codes
        assert client.get(names[-1]).values() == [value]
        client.many([sloop.put(name, b"") for name in names])


@check
def a_listing_names_every_key_once(connect):
    with connect() as client:
        prefix = fresh("list") + b":"
        names = {prefix + str(n).encode() for n in range(300)}
        client.many([sloop.put(name, b"1") for name in names])
        client.put(prefix + b"gone", b"1")
        client.delete(prefix + b"gone")
        for limit in [7, 100, 300, 1000]:
            listed = list(client.keys(prefix, limit))
            assert len(listed) == len(names) and set(listed) == names
        assert list(client.keys(fresh("none"))) == []
        assert len(client.ask(sloop.keys(prefix, limit=0)).keys) <= 1
        assert client.ask(sloop.keys(prefix, limit=65535)).keys


@check
def calls_are_pipelined(connect):
    with connect() as client:
        names = [fresh() for _ in range(3000)]
        written = client.pipeline(sloop.put(name, name) for name in names)
        assert all(isinstance(one, sloop.Written) for one in written)
        found = client.pipeline(sloop.get(name) for name in names)
        assert [one.values() for one in found] == [[name] for name in names]


@check
def calls_of_one_write_and_calls_in_pieces_are_read_alike(connect):
    with connect() as client:
        key = fresh()
        kind, body = sloop.put(key, b"1")
        frames = [struct.pack("<IQB", 9 + len(body), n, kind) + body for n in range(101, 151)]
        client.socket.sendall(b"".join(frames))
        assert sorted(client.receive()[0] for _ in frames) == list(range(101, 151))
        for byte in frames[0]:
            client.socket.sendall(bytes([byte]))
        assert client.receive()[0] == 101


@check
def out_of_bounds_is_named(connect):
    with connect() as client:
        failure = fails(2, lambda: client.get(b""))
        assert (failure.first, failure.second) == (0, 1024)
        failure = fails(2, lambda: client.put(b"k" * 1025, b""))
        assert (failure.first, failure.second) == (1025, 1024)
        failure = fails(3, lambda: client.put(b"k", bytes(10 * 1024 * 1024 + 1)))
        assert (failure.first, failure.second) == (10_485_761, 10_485_760)
        failure = fails(4, lambda: client.put(b"k", b"", operation=b"x" * 65))
        assert (failure.first, failure.second) == (65, 64)
        assert failure.nothing_written
        client.ping()


@check
def a_quorum_beyond_the_copies_is_refused(connect):
    with connect() as client:
        key = fresh()
        copies = client.put(key, b"1", quorum=1).level.n
        failure = fails(31, lambda: client.get(key, quorum=copies + 1))
        assert (failure.first, failure.second) == (copies + 1, copies)
        fails(31, lambda: client.put(key, b"2", quorum=255))
        assert client.get(key, quorum=copies, strict=True, deadline_ms=2000).values() == [b"1"]


@check
def too_many_siblings_are_refused_and_a_context_helps(connect):
    with connect() as client:
        key = fresh()
        for n in range(100):
            client.put(key, str(n).encode(), context=SIBLING)
        failure = fails(20, lambda: client.put(key, b"101", context=SIBLING))
        assert (failure.first, failure.second) == (101, 100)
        client.put(key, b"one", context=client.get(key).context)
        assert client.get(key).values() == [b"one"]


@check
def a_malformed_body_is_answered_and_the_connection_goes_on(connect):
    with connect() as client:
        kind, body = sloop.put(fresh(), b"1")
        for call in [(0x55, b""), (kind, body[:-1]), (kind, body + b"\0"), (sloop.PING, b"\0"), (sloop.GET, b"")]:
            fails(1, lambda: client.ask(call))
        flags = sloop.GET, sloop.bytes16(b"k") + struct.pack("<BBI", 0, 0x80, 0)
        fails(1, lambda: client.ask(flags))
        client.ping()


@check
def a_length_out_of_bounds_ends_the_connection_with_a_reason(connect):
    for length in [8, 0, 0xFFFFFFFF]:
        with connect() as client:
            client.send(sloop.ping())
            client.socket.sendall(struct.pack("<I", length) + b"\0" * 9)
            assert client.receive() == (1, None), "what came before is answered"
            fails(1, client.receive)
            closed(client.receive)


@check
def the_sending_side_may_be_closed_first(connect):
    with connect() as client:
        key = fresh()
        call = client.send(sloop.put(key, b"last words"))
        client.socket.shutdown(socket.SHUT_WR)
        answered, written = client.receive()
        assert answered == call and isinstance(written, sloop.Written)
        closed(client.receive)
    with connect() as client:
        assert client.get(key).values() == [b"last words"]


def refusal(connect, hello):
    """What the node says to these first bytes, up to the end of the connection."""
    with socket.create_connection(connect.address, 10) as stranger:
        stranger.sendall(hello)
        answer = bytearray()
        while more := stranger.recv(1024):
            answer += more
    assert answer[:4] == b"SLOP" and struct.unpack_from("<H", answer, 4)[0] == len(answer) - 6
    reader = sloop.Reader(bytes(answer[6:]))
    assert reader.u8() == 1
    failure = reader.failure()
    reader.end()
    return failure


@check
def strangers_are_turned_away(connect):
    for noise in [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"SLOP\xff\xff", b"SLAP"]:
        assert refusal(connect, noise).code == 1


@check
def a_version_that_is_not_spoken_is_refused_with_those_that_are(connect):
    body = struct.pack("<HHQBH", 7, 9, 0, 0, 0xFFFF) + sloop.bytes16(connect.token)
    failure = refusal(connect, b"SLOP" + sloop.bytes16(body))
    assert (failure.code, failure.first, failure.second) == (41, 1, 1)


@check
def a_hello_may_say_more_and_come_byte_by_byte(connect):
    body = struct.pack("<HHQBH", 1, 3, 0, 0, 0xFFFF) + sloop.bytes16(connect.token) + b"of a later version"
    with socket.create_connection(connect.address, 10) as client:
        for byte in b"SLOP" + sloop.bytes16(body):
            client.sendall(bytes([byte]))
        greeting = client.recv(7)
    assert greeting[:4] == b"SLOP" and greeting[6] == 0


@check
def a_wrong_token_is_refused(connect):
    if connect.token:
        fails(40, lambda: Client(connect.addr, token=b"not it"))
        fails(40, lambda: Client(connect.addr))


class Connect:
    def __init__(self, addr, token):
        host, _, port = addr.rpartition(":")
        self.addr, self.token, self.address = addr, token, (host.strip("[]"), int(port))

    def __call__(self, **options):
        return Client(self.addr, token=self.token, **options)


def main(addr, token=""):
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(Connect(addr, token.encode()))
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} hold")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
