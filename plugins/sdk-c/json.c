/* JSON (RFC 8259), and the configuration in it. */
#include "witgate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at, *end;
    int depth;
} reader;

enum { DEPTH_MAX = 64 };

static bool value(reader *in, wg_json *to);

static void space(reader *in) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at) && *in->at) in->at++;
}

static bool take(reader *in, char letter) {
    space(in);
    if (in->at == in->end || *in->at != letter) return false;
    in->at++;
    return true;
}

static bool word(reader *in, const char *text) {
    size_t length = strlen(text);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, text, length) != 0) return false;
    in->at += length;
    return true;
}

static int hex(reader *in) {
    int code = 0;
    if (in->end - in->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = *in->at++;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

static char *utf8(char *to, int code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    }
    if (code >= 0x80) *to++ = (char)(0x80 | (code & 0x3f));
    return to;
}

/* The text after a quote; never longer than it was in JSON. */
static const char *string(reader *in) {
    char *text = wg_alloc((size_t)(in->end - in->at) + 1), *to = text;
    while (in->at < in->end) {
        unsigned char c = (unsigned char)*in->at++;
        if (c == '"') return text;
        if (c < 0x20) return NULL;
        if (c != '\\') {
            *to++ = (char)c;
            continue;
        }
        if (in->at == in->end) return NULL;
        char escaped = *in->at++;
        const char *place = strchr("\"\\/bfnrt", escaped);
        if (place != NULL && escaped != 0) {
            *to++ = "\"\\/\b\f\n\r\t"[place - "\"\\/bfnrt"];
            continue;
        }
        int code = escaped == 'u' ? hex(in) : -1;
        if (code >= 0xd800 && code < 0xdc00) {
            int low = word(in, "\\u") ? hex(in) : -1;
            if (low < 0xdc00 || low > 0xdfff) return NULL;
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code <= 0 || (code >= 0xdc00 && code < 0xe000)) {
            return NULL;
        }
        to = utf8(to, code);
    }
    return NULL;
}

static bool number(reader *in, wg_json *to) {
    const char *start = in->at;
    if (in->at < in->end && *in->at == '-') in->at++;
    const char *digits = in->at;
    while (in->at < in->end && *in->at && strchr("0123456789+-.eE", *in->at)) in->at++;
    if (digits == in->at || *digits < '0' || *digits > '9') return false;
    if (*digits == '0' && in->at - digits > 1 && digits[1] >= '0' && digits[1] <= '9') return false;
    char *end;
    to->kind = WG_NUMBER;
    to->text = wg_copy(start, (size_t)(in->at - start));
    to->number = strtod(to->text, &end);
    return *end == 0 && end[-1] != '.';
}

static bool items(reader *in, wg_json *to, char close) {
    const wg_json **next = &to->first;
    if (take(in, close)) return true;
    do {
        wg_json *item = wg_alloc(sizeof(wg_json));
        if (close == '}' && (!take(in, '"') || !(item->key = string(in)) || !take(in, ':'))) return false;
        if (!value(in, item)) return false;
        *next = item;
        next = &item->next;
    } while (take(in, ','));
    return take(in, close);
}

static bool value(reader *in, wg_json *to) {
    bool is_good;
    space(in);
    if (in->at == in->end || in->depth == DEPTH_MAX) return false;
    in->depth++;
    switch (*in->at) {
    case '"':
        in->at++;
        to->kind = WG_STRING;
        is_good = (to->text = string(in)) != NULL;
        break;
    case '{':
    case '[':
        to->kind = *in->at == '{' ? WG_MAP : WG_LIST;
        in->at++;
        is_good = items(in, to, to->kind == WG_MAP ? '}' : ']');
        break;
    case 't':
        to->kind = WG_TRUE;
        is_good = word(in, "true");
        break;
    case 'f':
        to->kind = WG_FALSE;
        is_good = word(in, "false");
        break;
    case 'n':
        to->kind = WG_NULL;
        is_good = word(in, "null");
        break;
    default:
        is_good = number(in, to);
    }
    in->depth--;
    return is_good;
}

const wg_json *wg_json_read(const char *text, size_t length) {
    reader in = {text, text + length, 0};
    wg_json *read = wg_alloc(sizeof(wg_json));
    if (!value(&in, read)) return NULL;
    space(&in);
    return in.at == in.end ? read : NULL;
}

const wg_json *wg_json_get(const wg_json *map, const char *key) {
    const wg_json *found = NULL;
    if (map == NULL || map->kind != WG_MAP) return NULL;
    /* The last of several, as other readers have it. */
    for (const wg_json *one = map->first; one != NULL; one = one->next) {
        if (strcmp(one->key, key) == 0) found = one;
    }
    return found == NULL || found->kind == WG_NULL ? NULL : found;
}

const char *wg_json_text(const wg_json *map, const char *key) {
    const wg_json *found = wg_json_get(map, key);
    return found != NULL && found->kind == WG_STRING ? found->text : NULL;
}

char *wg_json_quote(const char *text) {
    char *quoted = wg_alloc(6 * strlen(text) + 3), *to = quoted;
    *to++ = '"';
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20) {
            to += sprintf(to, "\\u%04x", c);
            continue;
        }
        if (c == '"' || c == '\\') *to++ = '\\';
        *to++ = (char)c;
    }
    *to++ = '"';
    return quoted;
}

static const char *wrong(const char *path, const char *expected) {
    return wg_format("%s: %s was expected", path, expected);
}

static const char *fill(const wg_key *key, const wg_json *found, const char *path) {
    switch (key->kind) {
    case WG_AS_TEXT:
        if (found->kind != WG_STRING) return wrong(path, "a text");
        *(const char **)key->to = found->text;
        return NULL;
    case WG_AS_INTEGER:
        if (found->kind != WG_NUMBER || strpbrk(found->text, ".eE")) return wrong(path, "a whole number");
        *(int64_t *)key->to = strtoll(found->text, NULL, 10);
        return NULL;
    case WG_AS_BOOLEAN:
        if (found->kind != WG_TRUE && found->kind != WG_FALSE) return wrong(path, "true or false");
        *(bool *)key->to = found->kind == WG_TRUE;
        return NULL;
    default:
        if (found->kind != WG_MAP) return wrong(path, "a map of texts");
        for (const wg_json *one = found->first; one != NULL; one = one->next) {
            if (one->kind != WG_STRING) return wrong(wg_format("%s.%s", path, one->key), "a text");
        }
        *(const wg_json **)key->to = found;
        return NULL;
    }
}

const char *wg_want(const wg_json *config, const wg_key *keys, size_t count) {
    if (config != NULL && config->kind != WG_MAP) return wrong("config", "a map");
    for (const wg_json *one = config == NULL ? NULL : config->first; one != NULL; one = one->next) {
        bool is_known = false;
        for (size_t i = 0; i < count; i++) is_known |= strcmp(keys[i].key, one->key) == 0;
        if (!is_known) return wg_format("config.%s: unknown key", one->key);
    }
    for (size_t i = 0; i < count; i++) {
        const char *path = wg_format("config.%s", keys[i].key);
        const wg_json *found = wg_json_get(config, keys[i].key);
        if (found == NULL && keys[i].is_required) return wg_format("%s: is missing", path);
        const char *error = found == NULL ? NULL : fill(&keys[i], found, path);
        if (error != NULL) return error;
    }
    return NULL;
}
