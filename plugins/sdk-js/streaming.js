// The exports about bodies, beside those of the world `filter`.
import host from "witgate:plugin/body@0.1.0";
import { bodies, connectBodies } from "./index.js";

connectBodies(host);

export const bodyHooks = {
  onChunk: (body, chunk) => bodies.chunk(body, chunk),
  onFinish: (body) => bodies.finish(body),
  onAbandon: (body) => bodies.abandon(body),
};
