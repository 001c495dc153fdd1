// The exports of the world `router`.
import host from "witgate:plugin/request@0.1.0";
import make from "../../plugin.js";
import { decide } from "./decide.js";
import { Request } from "./index.js";
import { start } from "./start.js";

const request = new Request(host);
let instance;

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
