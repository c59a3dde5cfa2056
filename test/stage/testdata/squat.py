# Tries to take the ports of NGINX, in every way that bind(2) knows, and prints how often
# it could. It is run as a user who is not NGINX's.
import itertools, socket

tries = won = 0
for (host, port), reuse_address, reuse_port in itertools.product(
        [("0.0.0.0", 8845), ("::", 8845), ("127.0.0.1", 8845), ("0.0.0.0", 50002), ("::", 50002), ("127.0.0.1", 8846), ("0.0.0.0", 8846)],
        (0, 1), (0, 1)):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        tries += 1
        try:
            s.bind((host, port))
            s.listen()
            won += 1
        except OSError:
            pass
print("tries %d won %d" % (tries, won))
