// `configure` of every world.

/** Makes the plugin; what goes wrong is a text for the operator. */
export function start(make, config) {
  try {
    return make(JSON.parse(config));
  } catch (error) {
    throw String(error?.message ?? error);
  }
}
