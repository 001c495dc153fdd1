import { log, respond, state, want } from "witgate";

/** @type {import("witgate").FilterPlugin} */
export default function keyLimit(config) {
  const { "per-minute": limit } = want(config, "config", { "per-minute": "integer" });

  return {
    onRequest(request) {
      const key = request.headers.get("x-api-key");
      if (key === undefined) return respond(401, "x-api-key is missing\n");
      const count = state.increment(`key:${key.slice(0, 64)}`, 1, 60);
      if (count <= limit) return;
      if (count === limit + 1) log("warn", "an API key is over its limit");
      return respond(429, "slow down\n", { "retry-after": "60" });
    },
  };
}
