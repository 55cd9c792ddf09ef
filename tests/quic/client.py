"""One request over HTTP/3. Usage: client.py ADDR NAME PATH. Prints the length of the answer, or the error, and the time that
it took in ms."""
import asyncio
import socket
import sys
import time

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection


class Client(QuicConnectionProtocol):
    http = None

    async def ask(self, name, path):
        if self.http is None:
            self.http = H3Connection(self._quic)
        self.received, self.done = 0, asyncio.get_running_loop().create_future()
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", name), (b":path", path)]
        self.http.send_headers(stream, fields, end_stream=True)
        self.transmit()
        return await asyncio.wait_for(self.done, 15)

    def quic_event_received(self, event):
        if self.http is None:
            return
        for got in self.http.handle_event(event):
            if isinstance(got, DataReceived):
                self.received += len(got.data)
                if got.stream_ended:
                    self.done.set_result(self.received)


async def main(addr, name, path):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.verify_mode = 0
    connection = QuicConnection(configuration=configuration)
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    bound = ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)
    _, protocol = await loop.create_datagram_endpoint(lambda: Client(connection), local_addr=bound, family=family)
    start = time.monotonic()
    try:
        protocol.connect((addr, 443, 0, 0) if family == socket.AF_INET6 else (addr, 443))
        await asyncio.wait_for(protocol.wait_connected(), 15)
        print("answer", await protocol.ask(name.encode(), path.encode()), end=" ")
    except (ConnectionError, asyncio.TimeoutError) as error:
        print("error", type(error).__name__, end=" ")
    print(int((time.monotonic() - start) * 1000))


asyncio.run(main(*sys.argv[1:]))
