/* A DNS-01 solver for a provider with a small JSON API over single records, as most have. The API is the
 * one of `examples/provider.py`, so that all of this can be tried on one machine.
 *
 * The gateway computes names and values, retries, waits and cleans up; here is only the API. The token is a
 * placeholder: the gateway puts the secret in when it sends. */
#include "witgate.h"

#include <string.h>

static const char *api;
static int64_t ttl_configured;

const char *plugin_configure(const wg_json *config) {
    int64_t ttl = 0;
    bool has_ttl = wg_json_get(config, "ttl") != NULL;
    const wg_key keys[] = {
        {"api", WG_AS_TEXT, true, &api},
        {"ttl", WG_AS_INTEGER, false, &ttl},
    };
    const char *error = wg_want(config, keys, sizeof keys / sizeof keys[0]);
    if (error != NULL) return error;
    if (strncmp(api, "https://", 8) != 0 && strncmp(api, "http://", 7) != 0) {
        return "config.api: a URL such as https://api.provider.example/v1";
    }
    if (has_ttl && ttl < 1) return "config.ttl: at least one second";
    ttl_configured = ttl;
    size_t length = strlen(api);
    while (length > 0 && api[length - 1] == '/') length--;
    api = wg_copy(api, length);
    return NULL;
}

wg_pairs plugin_traits(void) {
    static const wg_pair traits[] = {{"ttl-min", "30"}};
    return (wg_pairs){traits, 1};
}

/* The answer if it is one of success; else a failure in the provider's own words. */
static const wg_failure *checked(const wg_answer *answer) {
    if (wg_is_success(answer)) return NULL;
    const char *said = wg_json_text(answer->json, "error");
    /* Without one it is not from the API itself but from something in front of it. */
    return wg_refused(answer, said != NULL ? said : wg_excerpt(answer));
}

static const wg_failure *call(const char *method, const char *url, const char *json, wg_answer *answer) {
    return wg_send((wg_outgoing){.method = method, .url = url, .json = json, .bearer = "token"}, answer);
}

static const wg_failure *unexpected(const wg_answer *answer, const char *what) {
    wg_failure *failure = wg_alloc(sizeof(wg_failure));
    const char *message = wg_format("the answer (status %u) has no %s: %s", answer->status, what, wg_excerpt(answer));
    *failure = (wg_failure){.code = "unavailable", .message = message};
    return failure;
}

/* Reads something whose answer is a map with a list of this name. */
static const wg_failure *list(const char *url, const char *name, const wg_json **first) {
    wg_answer answer;
    const wg_failure *failure = call("GET", url, NULL, &answer);
    if (failure == NULL) failure = checked(&answer);
    if (failure != NULL) return failure;
    const wg_json *found = wg_json_get(answer.json, name);
    if (found == NULL || found->kind != WG_LIST) return unexpected(&answer, name);
    *first = found->first;
    return NULL;
}

static const char *records(wg_zone zone) { return wg_format("%s/zones/%s/records", api, wg_escape(zone.handle)); }

const wg_failure *plugin_find_zone(wg_texts candidates, wg_zone *zone) {
    for (size_t i = 0; i < candidates.count; i++) {
        const char *name = candidates.items[i];
        const wg_json *entry;
        const wg_failure *failure = list(wg_format("%s/zones?name=%s", api, wg_escape(name)), "zones", &entry);
        if (failure != NULL) return failure;
        for (; entry != NULL; entry = entry->next) {
            const char *id = wg_json_text(entry, "id");
            if (id == NULL || !wg_equal(wg_json_text(entry, "name"), name)) continue;
            *zone = (wg_zone){name, id};
            return NULL;
        }
    }
    return wg_zone_not_found(candidates);
}

const wg_failure *plugin_present(wg_zone zone, const char *name, wg_texts values, unsigned ttl, const char **handle) {
    const char *ids = "";
    bool is_complete = true;
    long long seconds = ttl_configured > 0 ? ttl_configured : (long long)ttl;
    for (size_t i = 0; i < values.count; i++) {
        const char *record = wg_format("{\"type\":\"TXT\",\"name\":%s,\"content\":%s,\"ttl\":%lld}", wg_json_quote(name),
                                       wg_json_quote(values.items[i]), seconds);
        wg_answer answer;
        const wg_failure *failure = call("POST", records(zone), record, &answer);
        if (failure != NULL) return failure;
        /* It is there already, from a call that did not come through. */
        if (answer.status == 409) {
            is_complete = false;
            continue;
        }
        if ((failure = checked(&answer)) != NULL) return failure;
        const char *id = wg_json_text(answer.json, "id");
        if (id == NULL) return unexpected(&answer, "id");
        ids = wg_format("%s%s%s", ids, *ids ? " " : "", id);
    }
    /* Records that were there already are found by their value when they are removed. */
    *handle = is_complete ? ids : "";
    return NULL;
}

/* The next word of a text, which is moved on; NULL at the end. */
static const char *word(const char **text) {
    *text += strspn(*text, " ");
    size_t length = strcspn(*text, " ");
    const char *found = length == 0 ? NULL : wg_copy(*text, length);
    *text += length;
    return found;
}

const wg_failure *plugin_poll(wg_zone zone, const char *handle, unsigned *seconds) {
    for (const char *id; (id = word(&handle)) != NULL;) {
        wg_answer answer;
        const wg_failure *failure = call("GET", wg_format("%s/%s", records(zone), wg_escape(id)), NULL, &answer);
        if (failure == NULL) failure = checked(&answer);
        if (failure != NULL) return failure;
        if (wg_equal(wg_json_text(answer.json, "status"), "pending")) *seconds = 1;
    }
    return NULL;
}

static const wg_failure *drop(wg_zone zone, const char *id) {
    wg_answer answer;
    const wg_failure *failure = call("DELETE", wg_format("%s/%s", records(zone), wg_escape(id)), NULL, &answer);
    if (failure != NULL) return failure;
    /* It is gone already. */
    return answer.status == 404 ? NULL : checked(&answer);
}

const wg_failure *plugin_cleanup(wg_zone zone, const char *name, wg_texts values, const char *handle) {
    const wg_failure *failure = NULL;
    if (*handle) {
        for (const char *id; failure == NULL && (id = word(&handle)) != NULL;) failure = drop(zone, id);
        return failure;
    }
    const wg_json *entry;
    failure = list(wg_format("%s?type=TXT&name=%s", records(zone), wg_escape(name)), "records", &entry);
    for (; failure == NULL && entry != NULL; entry = entry->next) {
        const char *content = wg_json_text(entry, "content"), *id = wg_json_text(entry, "id");
        bool is_ours = false;
        /* Nobody else's: the name may hold more than ours. */
        for (size_t i = 0; i < values.count; i++) is_ours |= wg_equal(content, values.items[i]);
        if (is_ours && id != NULL) failure = drop(zone, id);
    }
    return failure;
}
