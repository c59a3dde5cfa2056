# Runs in the place of a unit's program, inside its sandbox, and tries to send to each "PROTOCOL
# ADDRESS PORT" of its arguments. It prints where that works:
#
#   tcp ADDRESS PORT    a listener that takes a connection
#   udp ADDRESS PORT    the kernel has sent a packet
import socket, sys


def sends(protocol, host, port):
    family, _, _, _, to = socket.getaddrinfo(host, int(port), flags=socket.AI_NUMERICHOST)[0]
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(to)
        if protocol == "udp":
            s.send(b"hello")


for way in sys.argv[1:]:
    try:
        sends(*way.split(","))
        print("REACHES", way.replace(",", " "))
    except OSError:
        pass
print("REACHES everything was tried")
