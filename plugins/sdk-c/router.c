/* The exports of the world `router`. */
#include "abi.h"

WG_EXPORT("router-hooks", "route") void abi_route(void) {
    plugin_route();
    abi_end();
}
