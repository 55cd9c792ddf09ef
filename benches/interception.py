#!/usr/bin/env python3
"""Interception by calamary, mitmproxy and squid's bump: what each costs.

    benches/interception.py --calamary target/release/calamary [--mitmdump mitmdump] [--squid squid] [--rounds 3]

All are HTTP proxies on loopback between the same client and the same nginx, decrypt everything, ask the server first and
check its certificate. Every round runs all of them, each started afresh. What is counted is the CPU time of the proxy's own
processes, so the client may be slow; medians of the rounds are printed as a table. Needs nginx and openssl, and squid root.
"""

import argparse
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

CONNECTIONS = 400
CLIENTS = 8
IDLE = 200
LARGE_MB = 64
DOWNLOADS = 4
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*args, **options):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def tree(root):
    """The process and all below it."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                parents[int(pid)] = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def cpu_seconds(root):
    total = 0
    for pid in tree(root):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def pss_kib(root):
    total = 0
    for pid in tree(root):
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total


class Client:
    """A connection through a proxy, whose TLS stands."""

    def __init__(self, proxy, origin, root):
        plain = socket.create_connection(("127.0.0.1", proxy), timeout=60)
        plain.sendall(f"CONNECT localhost:{origin} HTTP/1.1\r\nHost: localhost:{origin}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = plain.recv(4096)
            if not piece:
                raise OSError("the proxy closed")
            head += piece
        # A new context each time: nothing is resumed.
        context = ssl.create_default_context(cafile=root)
        context.set_alpn_protocols(["http/1.1"])
        self.host = f"localhost:{origin}"
        self.tls = context.wrap_socket(plain, server_hostname="localhost")

    def get(self, path):
        """The bytes of the answer's body."""
        self.tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.tls.recv(65536)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        got = len(rest)
        while got < length:
            piece = self.tls.recv(262144)
            assert piece, "the answer was cut short"
            got += len(piece)
        return got


def measure(pid, connect):
    """Handshakes per CPU second, CPU seconds per GB, KiB for an idle connection."""
    connect().get("/small")
    begun = cpu_seconds(pid)

    def some():
        for _ in range(CONNECTIONS // CLIENTS):
            client = connect()
            client.get("/small")
            client.tls.close()

    threads = [threading.Thread(target=some) for _ in range(CLIENTS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    handshakes = CONNECTIONS / (cpu_seconds(pid) - begun)

    client, begun = connect(), cpu_seconds(pid)
    moved = sum(client.get("/large") for _ in range(DOWNLOADS))
    per_gb = (cpu_seconds(pid) - begun) / (moved / 1e9)
    client.tls.close()

    time.sleep(1)
    before = pss_kib(pid)
    idle = [connect() for _ in range(IDLE)]
    [client.get("/small") for client in idle]
    memory = (pss_kib(pid) - before) / IDLE
    [client.tls.close() for client in idle]
    return handshakes, per_gb, memory


def certificates(folder):
    """A root, a certificate of its for localhost, and the authority for interception."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    with open(f"{folder}/names", "w") as names:
        names.write("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    run("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=root", "-keyout", "root.key", "-out",
        "root.pem", cwd=folder)
    run("openssl", "req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr", cwd=folder)
    run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
        "-days", "30", "-extfile", "names", "-out", "server.pem", cwd=folder)
    os.makedirs(f"{folder}/ca")
    run("openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=authority", "-addext",
        "keyUsage=critical,keyCertSign", "-keyout", "ca/ca.key", "-out", "ca/ca.pem", cwd=folder)


def nginx(folder):
    port = free_port()
    with open(f"{folder}/small", "wb") as small, open(f"{folder}/large", "wb") as large:
        small.write(os.urandom(1024))
        large.write(os.urandom(1 << 20) * LARGE_MB)
    with open(f"{folder}/nginx.conf", "w") as config:
        config.write(f"""daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 1; events {{}}
            http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
            fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder}; keepalive_timeout 600;
            server {{ listen 127.0.0.1:{port} ssl backlog=1024; root {folder}; ssl_certificate {folder}/server.pem;
            ssl_certificate_key {folder}/server.key; }} }}""")
    return subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL), port


def calamary(program, folder, port):
    with open(f"{folder}/calamary.yml", "w") as config:
        config.write(f"""
listen: [{{mode: http, port: {port}, ip6: []}}]
output: {{allowLocal: true}}
certs: {{interceptPublic: {folder}/ca/ca.pem, interceptPrivate: {folder}/ca/ca.key, caPublic: {folder}/root.pem}}
rules:
  - {{path: '/ads*', action: deny}}
  - {{action: intercept}}
""")
    return [program, "-f", f"{folder}/calamary.yml"]


def mitmproxy(program, folder, port):
    conf = f"{folder}/mitmproxy"
    os.makedirs(conf, exist_ok=True)
    with open(f"{conf}/mitmproxy-ca.pem", "w") as both:
        for part in ("ca.key", "ca.pem"):
            with open(f"{folder}/ca/{part}") as pem:
                both.write(pem.read())
    return [program, "-q", "--listen-host", "127.0.0.1", "-p", str(port), "--set", f"confdir={conf}", "--set",
            f"ssl_verify_upstream_trusted_ca={folder}/root.pem", "--set", "stream_large_bodies=1m", "--set",
            "flow_detail=0"]


def squid(program, folder, port):
    state = f"{folder}/squid-{port}"
    os.makedirs(state)
    helper = "/usr/lib/squid/security_file_certgen"
    run(helper, "-c", "-s", f"{state}/certificates", "-M", "4MB")
    with open(f"{state}/squid.conf", "w") as config:
        config.write(f"""
http_port 127.0.0.1:{port} ssl-bump tls-cert={folder}/ca/ca.pem tls-key={folder}/ca/ca.key generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program {helper} -s {state}/certificates -M 4MB
tls_outgoing_options cafile={folder}/root.pem
acl first at_step SslBump1
acl second at_step SslBump2
ssl_bump peek first
ssl_bump stare second
ssl_bump bump all
http_access allow all
cache deny all
access_log none
cache_log {state}/cache.log
cache_store_log none
pid_filename {state}/squid.pid
coredump_dir {state}
shutdown_lifetime 1 seconds
max_filedescriptors 4096
""")
    run("chown", "-R", "proxy", state)
    run("chgrp", "-R", "proxy", f"{folder}/ca")
    run("chmod", "-R", "g+rX", f"{folder}/ca")
    return [program, "-N", "-f", f"{state}/squid.conf"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--calamary", default="target/release/calamary")
    arguments.add_argument("--mitmdump", default=shutil.which("mitmdump"))
    arguments.add_argument("--squid", default=shutil.which("squid", path="/usr/sbin:/usr/bin"))
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    proxies = {"calamary": (calamary, given.calamary), "mitmproxy": (mitmproxy, given.mitmdump),
               "squid": (squid, given.squid)}
    results = {name: [] for name, (_, program) in proxies.items() if program}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        certificates(folder)
        server, origin = nginx(folder)
        try:
            for _ in range(given.rounds):
                for name in results:
                    command, program = proxies[name]
                    port = free_port()
                    log = open(f"{folder}/{name}.log", "wb")
                    proxy = subprocess.Popen(command(program, folder, port), stdout=log, stderr=log)
                    try:
                        wait_for(port, proxy)
                        connect = lambda: Client(port, origin, f"{folder}/ca/ca.pem")
                        results[name].append(measure(proxy.pid, connect))
                        print(name, *(f"{figure:.2f}" for figure in results[name][-1]), file=sys.stderr)
                    finally:
                        proxy.terminate()
                        proxy.wait()
        finally:
            server.terminate()
            server.wait()
    print("| proxy | handshakes per CPU second | CPU s per GB | KiB per idle connection |\n| --- | --- | --- | --- |")
    best = [statistics.median(figures) for figures in zip(*results["calamary"])]
    for name, rounds in results.items():
        medians = [statistics.median(figures) for figures in zip(*rounds)]
        print(f"| {name} |", " | ".join(f"{m:.3g} ({m / b:.2g})" for m, b in zip(medians, best)), "|")


def wait_for(port, proxy):
    for _ in range(300):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if proxy.poll() is not None:
                break
            time.sleep(0.1)
    sys.exit(f"a proxy did not start: {proxy.args}")


if __name__ == "__main__":
    main()
