// The exports of the world `dns-solver`.
import host from "witgate:plugin/http@0.1.0";
import { Failure, connect } from "./dns.js";
import { start } from "./start.js";

let make;
let instance;

/** Makes the plugin of this component; its module exports `make` as `default`. */
export function begin(plugin) {
  make = plugin;
}

connect((method, url, headers, body) => {
  try {
    return host.send(method, url, headers, body);
  } catch (error) {
    const codes = { denied: "forbidden", "unknown-secret": "auth", "refused-credential": "auth", "bad-request": "invalid" };
    const failure = error?.payload ?? error;
    throw new Failure(codes[failure.code] ?? "unavailable", failure.message);
  }
});

/** What a call throws, as the contract has it. */
function told(call) {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const { code, message, retryAfter } = error;
    throw { code, message, retryAfterSeconds: retryAfter ?? null };
  }
}

export const plugin = {
  configure(config) {
    instance = start(make, config);
    return [];
  },
};

export const dnsSolverHooks = {
  traits() {
    const traits = instance.traits?.() ?? {};
    return Object.entries(traits).map(([name, value]) => [name, String(value)]);
  },
  findZone(candidates) {
    const zone = told(() => instance.findZone(candidates));
    return [zone.name, zone.handle];
  },
  present(name, handle, record, values, ttl) {
    return told(() => instance.present({ name, handle }, record, values, ttl));
  },
  poll(name, handle, change) {
    return told(() => instance.poll?.({ name, handle }, change)) ?? null;
  },
  cleanup(name, handle, record, values, change) {
    told(() => instance.cleanup({ name, handle }, record, values, change));
  },
};
