"""Calls the server of grpc_server.py in every mode through a gateway; prints what came back as JSON.

Usage: grpc_client.py PORT HOST ROOTS [SECONDS]. With SECONDS it makes one call that goes both ways and says
nothing for so long before its first message and after each answer.
"""

import json
import sys
import threading
import time

import grpc

SECONDS = 10


def fields(metadata):
    return {key: value for key, value in metadata or () if key.startswith("x-") and not key.endswith("-bin")}


def failure(call, is_stream=False):
    try:
        list(call) if is_stream else call.result()
    except grpc.RpcError as error:
        return {
            "code": error.code().name,
            "details": error.details(),
            "trailers": fields(error.trailing_metadata()),
        }
    return None


def silent(channel, seconds):
    answered = threading.Semaphore(1)

    def questions():
        for n in range(2):
            answered.acquire()
            time.sleep(seconds)
            yield b"%d" % n
        answered.acquire()
        time.sleep(seconds)

    echoes = []
    try:
        for echo in channel.stream_stream("/test.Modes/Both")(questions(), timeout=10 * SECONDS):
            echoes.append(echo.decode())
            answered.release()
    except grpc.RpcError as error:
        return {"echoes": echoes, "code": error.code().name}
    return {"echoes": echoes, "code": "OK"}


def main():
    port, host, roots = sys.argv[1:4]
    credentials = grpc.ssl_channel_credentials(open(roots, "rb").read())
    options = (("grpc.ssl_target_name_override", host), ("grpc.default_authority", host))
    channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
    if len(sys.argv) > 4:
        print(json.dumps(silent(channel, float(sys.argv[4]))))
        return
    seen = {}

    answer, call = channel.unary_unary("/test.Modes/Unary").with_call(b"x", timeout=SECONDS)
    trailers = dict(call.trailing_metadata())
    seen["unary"] = {
        "answer": answer.decode(),
        "initial": fields(call.initial_metadata()),
        "trailers": fields(call.trailing_metadata()),
        "binary": trailers["x-data-bin"].hex(),
    }
    # More than a window's worth, so that flow control has its part.
    large, _ = channel.unary_unary("/test.Modes/Unary").with_call(b"x" * 3_000_000, timeout=SECONDS)
    seen["large"] = len(large)

    call = channel.unary_stream("/test.Modes/ServerStream")(b"1000", timeout=SECONDS)
    count = sum(1 for n, message in enumerate(call) if message == b"%d" % n)
    seen["server_stream"] = {"count": count, "trailers": fields(call.trailing_metadata())}

    messages = iter([b"y" * 10_000] * 100)
    answer, call = channel.stream_unary("/test.Modes/ClientStream").with_call(messages, timeout=SECONDS)
    seen["client_stream"] = {"answer": answer.decode(), "trailers": fields(call.trailing_metadata())}

    # Each message waits for the answer to the one before: nothing may be held back on the way.
    answered = threading.Semaphore(1)

    def questions():
        for n in range(50):
            answered.acquire()
            yield b"%d" % n

    echoes = []
    for echo in channel.stream_stream("/test.Modes/Both")(questions(), timeout=SECONDS):
        echoes.append(echo.decode())
        answered.release()
    seen["both"] = echoes == [f"echo:{n}" for n in range(50)]

    seen["refuse"] = failure(channel.unary_unary("/test.Modes/Refuse").future(b"", timeout=SECONDS))
    seen["unknown"] = failure(channel.unary_unary("/test.Modes/Nothing").future(b"", timeout=SECONDS))
    late = channel.unary_stream("/test.Modes/LateFailure")(b"", timeout=SECONDS)
    got = [next(late).decode(), next(late).decode()]
    seen["late_failure"] = {"got": got, **failure(late, is_stream=True)}
    seen["deadline"] = failure(channel.unary_unary("/test.Modes/Slow").future(b"", timeout=0.5))["code"]
    print(json.dumps(seen))


main()
