/* The export of every world. */
#include "abi.h"

#include <string.h>

typedef struct {
    bool is_error;
    union {
        abi_texts hooks;
        abi_text error;
    };
} configured;

const char *abi_hooks(void);

__attribute__((weak)) const char *abi_hooks(void) { return ""; }

static configured result;

WG_EXPORT("plugin", "configure") const configured *abi_configure(const char *text, size_t length) {
    const wg_json *config = wg_json_read(text, length);
    const char *error = plugin_configure(config != NULL && config->kind == WG_NULL ? NULL : config);
    result = (configured){.is_error = error != NULL};
    if (error != NULL) {
        result.error = abi_lower(error);
        return &result;
    }
    const char *hooks = abi_hooks(), *end;
    wg_texts list = {wg_alloc((strlen(hooks) + 1) * sizeof(char *)), 0};
    for (; *hooks; hooks = *end ? end + 1 : end) {
        end = hooks + strcspn(hooks, " ");
        if (end > hooks) list.items[list.count++] = wg_copy(hooks, (size_t)(end - hooks));
    }
    result.hooks = abi_lower_texts(list);
    return &result;
}

WG_AFTER("plugin", "configure") void abi_after_configure(const configured *unused) {
    (void)unused;
    abi_keep();
}
