"""An HTTP/3 client on aioquic. Reads one JSON object per line from standard input, sends the requests
in it, and writes one JSON object per line with what came back.

A line is {"requests": [{"method", "path", "headers", "body", "hex", "trailers", "raw"}], "move": bool}: the
requests are sent at once. "raw" replaces the whole head, "hex" is
a body of any bytes, after which "open" leaves the stream open; the answer to it is
enough when it has "until". "move" changes the client's port first, as a
NAT does. The line {"close": true} ends it. Without a line the connection only waits.
"""

import asyncio
import base64
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.http = H3Connection(self._quic)
        self.waiting = {}
        self.answers = {}
        self.wanted = {}
        self.ended = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            if not self.ended.done():
                self.ended.set_result({"ended": event.error_code, "why": event.reason_phrase})
            for stream in list(self.waiting):
                self.finish(stream, lost=event.error_code, why=event.reason_phrase)
            return
        if isinstance(event, StreamReset):
            self.finish(event.stream_id, reset=event.error_code)
        for event in self.http.handle_event(event):
            answer = self.answers.setdefault(event.stream_id, {"body": b""})
            if isinstance(event, HeadersReceived):
                fields = [[n.decode(), v.decode("latin-1")] for n, v in event.headers]
                if "fields" in answer:
                    answer["trailers"] = fields
                else:
                    answer["status"] = int(dict(map(tuple, fields))[":status"])
                    answer["fields"] = fields
            elif isinstance(event, DataReceived):
                answer["body"] += event.data
                wanted = self.wanted.get(event.stream_id)
                if wanted and wanted.encode() in answer["body"]:
                    self.finish(event.stream_id)
            if event.stream_ended:
                self.finish(event.stream_id)

    def finish(self, stream, **more):
        answer = self.answers.setdefault(stream, {"body": b""})
        answer.update(more)
        waiting = self.waiting.pop(stream, None)
        if waiting and not waiting.done():
            waiting.set_result(answer)

    def send(self, name, request):
        stream = self._quic.get_next_available_stream_id()
        self.waiting[stream] = asyncio.get_running_loop().create_future()
        self.wanted[stream] = request.get("until")
        head = request.get("raw") or [
            [":method", request.get("method", "GET")],
            [":scheme", "https"],
            [":authority", request.get("authority", name)],
            [":path", request.get("path", "/")],
            *request.get("headers", []),
        ]
        body = bytes.fromhex(request["hex"]) if "hex" in request else request.get("body", "").encode()
        trailers = request.get("trailers")
        encode = lambda fields: [(n.encode(), v.encode("latin-1")) for n, v in fields]
        self.http.send_headers(stream, encode(head), end_stream=not body and not trailers)
        if body:
            self.http.send_data(stream, body, end_stream=not trailers and not request.get("open"))
        if trailers:
            self.http.send_headers(stream, encode(trailers), end_stream=True)
        if request.get("cancel"):
            self._quic.reset_stream(stream, 0x10C)
            self._quic.stop_stream(stream, 0x10C)
        return self.waiting[stream]


async def main():
    host, port, name, roots = sys.argv[1:5]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=name)
    configuration.load_verify_locations(roots)
    if len(sys.argv) > 6:
        configuration.load_cert_chain(sys.argv[5], sys.argv[6])
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def say(what):
        print(json.dumps(what), flush=True)

    try:
        connection = connect(
            host, int(port), configuration=configuration, create_protocol=Client
        )
        async with connection as client:
            say({"connected": True})
            while True:
                line = asyncio.ensure_future(reader.readline())
                await asyncio.wait([line, client.ended], return_when=asyncio.FIRST_COMPLETED)
                if client.ended.done():
                    say(client.ended.result())
                    return
                order = json.loads(line.result() or '{"close": true}')
                if order.get("close"):
                    return
                if order.get("move"):
                    await loop.create_datagram_endpoint(
                        lambda: client,
                        local_addr=(client._transport.get_extra_info("sockname")[0], 0),
                    )
                    client.change_connection_id()
                sent = [client.send(name, request) for request in order["requests"]]
                client.transmit()
                answers = []
                for request, waiting in zip(order["requests"], sent):
                    if request.get("cancel"):
                        continue
                    answer = await waiting
                    body = base64.b64encode(answer["body"]).decode()
                    answers.append({**answer, "body": body})
                say({"answers": answers})
    except ConnectionError as error:
        say({"failed": str(error)})


asyncio.run(main())
