import { crypto, log, respond, state, toBytes, toText } from "witgate";

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
    if (request.path === "/connection") return respond(200, `${request.clientAddress} ${request.httpVersion}`);
    log("warn", "the probe speaks");
  },
  bodyBytes: 4,
  onRequestBody(request, prefix, isComplete) {
    if (request.path === "/body") return respond(200, `prefix=${toText(prefix)} ${isComplete}`);
  },
  onResponse(_request, response) {
    response.headers.set("x-status", String(response.status));
  },
});
