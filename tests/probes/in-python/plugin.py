import witgate
from witgate import body, crypto, respond, state


class Counting:
    def __init__(self):
        self.bytes = 0

    def chunk(self, chunk):
        self.bytes += len(chunk)
        return [chunk.upper(), b"|"]

    def finish(self):
        witgate.log(f"the probe observed {self.bytes} bytes", "warn")
        return f"{self.bytes} bytes".encode()


class Passing:
    def chunk(self, chunk):
        return chunk

    def finish(self):
        return b"<end>"


class Probe:
    body_bytes = 4

    def __init__(self, config):
        pass

    def on_request(self, request):
        if request.path == "/state":
            n = state.increment("n", 1, 60)
            state.set("k", f"v{n}".encode())
            return respond(200, f"n={n} k={state.get('k').decode()}")
        if request.path == "/crypto":
            code = crypto.hmac("sha256", "key", b"data")
            good = crypto.verify_hmac("sha256", "key", b"data", code)
            bad = crypto.verify_hmac("sha256", "key", b"else", code)
            try:
                crypto.verify_signature("none", b"", b"", b"")
                failure = "none"
            except crypto.CryptoError as error:
                failure = str(error)
            return respond(200, f"{code.hex()} {good} {bad} {failure}".lower())
        if request.path == "/upper":
            body.expect_response()
            body.transform(Counting())
        if request.path == "/observe":
            body.observe(Counting())
        if request.path == "/connection":
            return respond(200, f"{request.client_address} {request.http_version}")
        witgate.log("the probe speaks", "warn")

    def on_request_body(self, request, prefix, is_complete):
        if request.path == "/body":
            return respond(200, f"prefix={prefix.decode()} {is_complete}".lower())

    def on_response(self, request, response):
        response["x-status"] = str(response.status)
        if request.path == "/pass":
            body.transform(Passing())
            try:
                body.transform(Passing())
            except body.BodyError as error:
                response["x-again"] = str(error)


witgate.filter(Probe)
