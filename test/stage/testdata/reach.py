# Runs in the place of a unit's program, inside its sandbox, and prints what can be
# reached from there, one thing to a line:
#
#   socket PATH     a unix socket that takes a connection
#   abstract NAME   the same of one without a file
#   bus NAME        a name on D-Bus that may be spoken to
#   tcp ADDRESS     a listener on loopback that takes a connection
#   names ADDRESS   a resolver that answers
#   write PATH      a file or directory that can be written to; of a tree its top
import os, re, socket, stat, struct, sys

SKIP = ("/proc", "/sys", "/dev/pts")
BUS = "/run/dbus/system_bus_socket"
DENIED = object()
NO_AUTO_START = 2  # else each question would start a service
found = set()


def connects(address):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        try:
            with socket.socket(socket.AF_UNIX, kind) as s:
                s.settimeout(2)
                s.connect(address)
                return True
        except OSError:
            pass
    return False


def walk(top, inside):
    """inside: what it lies in was told of as writable."""
    try:
        entries = list(os.scandir(top))
    except OSError:
        return
    for entry in entries:
        path = entry.path
        if path in SKIP:
            continue
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            continue
        if stat.S_ISSOCK(mode):
            if connects(path):
                found.add("socket " + path)
            continue
        writable = os.access(path, os.W_OK, effective_ids=True, follow_symlinks=False)
        # Everybody's own terminal, and nothing.
        if writable and not inside and not stat.S_ISCHR(mode):
            found.add("write " + path)
        if stat.S_ISDIR(mode):
            walk(path, inside or writable)


def network(name):
    try:
        with open("/proc/self/net/" + name) as table:
            return [line.split() for line in table][1:]
    except OSError:
        return []


def address(text):
    host, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(host[i:i + 8], 16)) for i in range(0, len(host), 8))
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    if not any(packed):
        packed = socket.inet_pton(family, "127.0.0.1" if family == socket.AF_INET else "::1")
    return family, socket.inet_ntop(family, packed), int(port, 16)


def listeners():
    for row in network("tcp") + network("tcp6"):
        if row[3] != "0A":
            continue
        family, host, port = address(row[1])
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(2)
                s.connect((host, port))
                found.add("tcp %s %d" % (host, port))
        except OSError:
            pass


def resolvers():
    # One question for the address of localhost, which a resolver answers by itself.
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
    for host in ("127.0.0.53", "127.0.0.54"):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(2)
                s.connect((host, 53))
                s.send(question)
                s.recv(512)
                found.add("names %s" % host)
        except OSError:
            pass


def message(serial, destination, path, interface, member, body=b"", signature=""):
    def text(value):
        value = value.encode()
        return struct.pack("<I", len(value)) + value + b"\0"

    def pad(data, to):
        return data + b"\0" * (-len(data) % to)

    fields = b""
    for code, kind, value in ((1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)):
        fields = pad(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0" + text(value)
    if signature:
        fields = pad(fields, 8) + bytes([8, 1, 103, 0, len(signature)]) + signature.encode() + b"\0"
    head = struct.pack("<cBBBII", b"l", 1, NO_AUTO_START, 1, len(body), serial) + struct.pack("<I", len(fields)) + fields
    return pad(head, 8) + body


def answer(stream):
    """The body of the next answer; DENIED if the bus lets nobody ask that."""
    while True:
        head = stream.read(16)
        if len(head) < 16:
            raise OSError("the bus hung up")
        body, _, fields = struct.unpack("<III", head[4:])
        rest = stream.read(fields + (-fields % 8))
        content = stream.read(body)
        if head[1] in (2, 3):
            return DENIED if b"AccessDenied" in rest else content


def bus():
    if not connects(BUS):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        s.connect(BUS)
        stream = s.makefile("rb")
        s.send(b"\0AUTH EXTERNAL %s\r\n" % str(os.geteuid()).encode().hex().encode())
        if not stream.readline().startswith(b"OK"):
            return
        s.send(b"BEGIN\r\n")
        own = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        s.send(message(1, *own, "Hello"))
        answer(stream)
        s.send(message(2, *own, "ListNames"))
        names = {name.decode() for name in re.findall(rb"[A-Za-z_][\w-]*(?:\.[\w-]+)+", answer(stream) or b"")}
        for serial, name in enumerate(sorted(names - {"org.freedesktop.DBus"}), 10):
            s.send(message(serial, name, "/", "org.freedesktop.DBus.Peer", "Ping"))
            if answer(stream) != DENIED:
                found.add("bus " + name)


walk("/", False)
for row in network("unix"):
    # An abstract name begins with @; a listener has flag 0x10000.
    if len(row) > 7 and row[7].startswith("@") and int(row[3], 16) & 0x10000 and connects("\0" + row[7][1:]):
        found.add("abstract " + row[7])
listeners()
resolvers()
try:
    bus()
except OSError as error:
    found.add("bus %s" % error)
for line in sorted(found):
    print("REACHES", line)
print("REACHES everything was tried")
