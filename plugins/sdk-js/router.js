// The exports of the world `router`.
import connection from "witgate:plugin/connection@0.1.0";
import host from "witgate:plugin/request@0.1.0";
import { decide } from "./decide.js";
import { Request } from "./index.js";
import { start } from "./start.js";

const request = new Request(host, connection);
let make;
let instance;

/** Makes the plugin of this component; its module exports `make` as `default`. */
export function begin(plugin) {
  make = plugin;
}

export const plugin = {
  configure(config) {
    instance = start(make, config);
    return [];
  },
};

export const routerHooks = {
  route() {
    decide(instance.route(request));
  },
};
