"""An HTTP/3 server: every request gets a text. Usage: server.py CERT KEY ADDR..."""
import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for got in self.http.handle_event(event):
            if isinstance(got, HeadersReceived):
                path = dict(got.headers).get(b":path", b"/")
                self.http.send_headers(got.stream_id, [(b":status", b"200"), (b"content-type", b"text/html")])
                text = b"over QUIC, from address %s\n" % path
                body = text + b"x" * (300_000 if path == b"/large" else 0)
                self.http.send_data(got.stream_id, body, end_stream=True)
                self.transmit()


async def main(cert, key, addrs):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(cert, key)
    for addr in addrs:
        await serve(addr, 443, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
