"""A gRPC server for tests: every mode, errors of every kind, and the health service.

Usage: grpc_server.py PORT [CERTIFICATE KEY CLIENT_ROOTS]. With the last three it speaks TLS and wants a
client certificate. Messages are plain bytes.
"""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-data-bin", b"\x00\xff")))
    return b"unary:" + request


def server_stream(request, context):
    context.set_trailing_metadata((("x-trailing", "last"),))
    for n in range(int(request)):
        yield b"%d" % n


def client_stream(requests, context):
    total = sum(len(request) for request in requests)
    context.set_trailing_metadata((("x-trailing", "last"),))
    return b"%d" % total


def both(requests, context):
    for request in requests:
        yield b"echo:" + request


def refuse(request, context):
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % of it\nnot")


def late_failure(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "gone")


def slow(request, context):
    time.sleep(5)
    return b"too late"


def health(request, context):
    return b"\x08\x01"


def main():
    port, tls = sys.argv[1], sys.argv[2:]
    rpc = grpc.method_handlers_generic_handler
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((
        rpc("test.Modes", {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(both),
            "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "LateFailure": grpc.unary_stream_rpc_method_handler(late_failure),
            "Slow": grpc.unary_unary_rpc_method_handler(slow),
        }),
        rpc("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(health)}),
    ))
    address = f"127.0.0.1:{port}"
    if tls:
        certificate, key, roots = (open(name, "rb").read() for name in tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)], roots, True)
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


main()
