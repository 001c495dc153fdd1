import { crypto, expectResponse, log, observeBody, respond, state, toBytes, toText, transformBody } from "witgate";

/** @type {import("witgate").FilterPlugin} */
export default () => ({
  onRequest(request) {
    if (request.path === "/state") {
      const n = state.increment("n", 1, 60);
      state.set("k", `v${n}`);
      return respond(200, `n=${n} k=${state.getText("k")}`);
    }
    if (request.path === "/crypto") {
      const code = crypto.hmac("sha256", "key", toBytes("data"));
      const hex = Array.from(code, (byte) => byte.toString(16).padStart(2, "0")).join("");
      const good = crypto.verifyHmac("sha256", "key", toBytes("data"), code);
      const bad = crypto.verifyHmac("sha256", "key", toBytes("else"), code);
      const none = new Uint8Array();
      let failure = "none";
      try {
        crypto.verifySignature("none", none, none, none);
      } catch (error) {
        failure = error.message;
      }
      return respond(200, `${hex} ${good} ${bad} ${failure}`);
    }
    if (request.path === "/upper") {
      let bytes = 0;
      expectResponse();
      transformBody({
        chunk(chunk) {
          bytes += chunk.length;
          return [toText(chunk).toUpperCase(), "|"];
        },
        finish: () => `${bytes} bytes`,
      });
    }
    if (request.path === "/observe") {
      let bytes = 0;
      observeBody({
        chunk(chunk) {
          bytes += chunk.length;
        },
        finish: () => log("warn", `the probe observed ${bytes} bytes`),
      });
    }
    if (request.path === "/connection") return respond(200, `${request.clientAddress} ${request.httpVersion}`);
    log("warn", "the probe speaks");
  },
  bodyBytes: 4,
  onRequestBody(request, prefix, isComplete) {
    if (request.path === "/body") return respond(200, `prefix=${toText(prefix)} ${isComplete}`);
  },
  onResponse(_request, response) {
    response.headers.set("x-status", String(response.status));
    if (_request.path === "/pass") {
      transformBody({ chunk: (chunk) => chunk, finish: () => "<end>" });
      try {
        transformBody({ chunk() {} });
      } catch (error) {
        response.headers.set("x-again", error.message);
      }
    }
  },
});
