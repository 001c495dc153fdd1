/* The exports of the world `dns-solver`. */
#include "abi.h"

typedef struct {
    abi_text code, message;
    bool has_wait;
    uint32_t wait;
} abi_failure;

typedef struct {
    bool is_error;
    union {
        struct {
            abi_text name, handle;
        } zone;
        abi_text handle;
        abi_failure failure;
    };
} abi_result;

typedef struct {
    bool is_error;
    union {
        struct {
            bool is_there;
            uint32_t seconds;
        } wait;
        abi_failure failure;
    };
} abi_wait;

__attribute__((weak)) wg_pairs plugin_traits(void) { return WG_NONE; }
__attribute__((weak)) const wg_failure *plugin_poll(wg_zone zone, const char *handle, unsigned *seconds) {
    (void)zone, (void)handle, (void)seconds;
    return NULL;
}

static abi_failure lower(const wg_failure *failure) {
    return (abi_failure){
        abi_lower(failure->code), abi_lower(failure->message), failure->retry_after > 0, failure->retry_after,
    };
}

static wg_zone zone_of(const char *name, size_t name_length, const char *handle, size_t handle_length) {
    return (wg_zone){wg_copy(name, name_length), wg_copy(handle, handle_length)};
}

WG_EXPORT("dns-solver-hooks", "traits") const abi_pairs *abi_traits(void) {
    static abi_pairs result;
    result = abi_lower_pairs(plugin_traits());
    return &result;
}

WG_EXPORT("dns-solver-hooks", "find-zone") const abi_result *abi_find_zone(const abi_text *items, size_t count) {
    static abi_result result;
    wg_zone zone = {"", ""};
    const wg_failure *failure = plugin_find_zone(abi_lift_texts((abi_texts){items, count}), &zone);
    result = (abi_result){.is_error = failure != NULL};
    if (failure != NULL) {
        result.failure = lower(failure);
    } else {
        result.zone.name = abi_lower(zone.name);
        result.zone.handle = abi_lower(zone.handle);
    }
    return &result;
}

WG_EXPORT("dns-solver-hooks", "present")
const abi_result *abi_present(const char *zone, size_t zone_length, const char *id, size_t id_length, const char *name, size_t name_length, const abi_text *values, size_t count, uint32_t ttl) {
    static abi_result result;
    const char *handle = "";
    const wg_failure *failure = plugin_present(zone_of(zone, zone_length, id, id_length), wg_copy(name, name_length), abi_lift_texts((abi_texts){values, count}), ttl, &handle);
    result = (abi_result){.is_error = failure != NULL};
    if (failure != NULL) {
        result.failure = lower(failure);
    } else {
        result.handle = abi_lower(handle);
    }
    return &result;
}

WG_EXPORT("dns-solver-hooks", "poll")
const abi_wait *abi_poll(const char *zone, size_t zone_length, const char *id, size_t id_length, const char *handle, size_t handle_length) {
    static abi_wait result;
    unsigned seconds = 0;
    const wg_failure *failure = plugin_poll(zone_of(zone, zone_length, id, id_length), wg_copy(handle, handle_length), &seconds);
    result = (abi_wait){.is_error = failure != NULL};
    if (failure != NULL) {
        result.failure = lower(failure);
    } else {
        result.wait.is_there = seconds > 0;
        result.wait.seconds = seconds;
    }
    return &result;
}

WG_EXPORT("dns-solver-hooks", "cleanup")
const abi_result *abi_cleanup(const char *zone, size_t zone_length, const char *id, size_t id_length, const char *name, size_t name_length, const abi_text *values, size_t count, const char *handle, size_t handle_length) {
    static abi_result result;
    const wg_failure *failure = plugin_cleanup(zone_of(zone, zone_length, id, id_length), wg_copy(name, name_length), abi_lift_texts((abi_texts){values, count}), wg_copy(handle, handle_length));
    result = (abi_result){.is_error = failure != NULL};
    if (failure != NULL) result.failure = lower(failure);
    return &result;
}

WG_AFTER("dns-solver-hooks", "traits") void abi_after_traits(const void *unused) { (void)unused, abi_end(); }
WG_AFTER("dns-solver-hooks", "find-zone") void abi_after_find_zone(const void *unused) { (void)unused, abi_end(); }
WG_AFTER("dns-solver-hooks", "present") void abi_after_present(const void *unused) { (void)unused, abi_end(); }
WG_AFTER("dns-solver-hooks", "poll") void abi_after_poll(const void *unused) { (void)unused, abi_end(); }
WG_AFTER("dns-solver-hooks", "cleanup") void abi_after_cleanup(const void *unused) { (void)unused, abi_end(); }
