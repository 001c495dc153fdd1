// `configure` of every world.
import crypto from "witgate:plugin/crypto@0.1.0";
import log from "witgate:plugin/log@0.1.0";
import state from "witgate:plugin/state@0.1.0";
import { connectHost, connectKeys } from "./index.js";

connectHost(log, state);
connectKeys(crypto);

/** Makes the plugin; what goes wrong is a text for the operator. */
export function start(make, config) {
  try {
    return make(JSON.parse(config));
  } catch (error) {
    throw String(error?.message ?? error);
  }
}
