/* Memory that lives as long as a call, and the texts in it. */
#include "abi.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct block {
    struct block *before;
    size_t used, size;
} block;

static block *last;
/* What `plugin_configure` made lies in blocks from here on. */
static block *kept;

void *wg_alloc(size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (last == kept || last->size - last->used < size) {
        size_t room = size > 32768 ? size : 32768;
        block *fresh = malloc(sizeof(block) + 16 + room);
        if (fresh == NULL) abort();
        *fresh = (block){last, 0, room};
        last = fresh;
    }
    char *start = (char *)(((uintptr_t)(last + 1) + 15) & ~(uintptr_t)15) + last->used;
    last->used += size;
    return memset(start, 0, size);
}

void abi_end(void) {
    /* One block stays for the next call. */
    while (last != kept && last->before != kept) {
        block *before = last->before;
        free(last);
        last = before;
    }
    if (last != kept) last->used = 0;
}

void abi_keep(void) { kept = last; }

#ifdef __wasm__
/* The gateway asks for memory here; one byte more ends texts with a NUL. */
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align;
    void *fresh = wg_alloc(size + 1);
    return old == NULL ? fresh : memcpy(fresh, old, old_size < size ? old_size : size);
}

/* The WASI adapter asks once, and keeps it. */
__attribute__((export_name("cabi_realloc_adapter"))) void *cabi_realloc_adapter(void *old, size_t old_size, size_t align, size_t size) {
    (void)old, (void)old_size;
    return aligned_alloc(align, (size + align - 1) / align * align);
}
#endif

char *wg_copy(const char *text, size_t length) {
    char *copy = wg_alloc(length + 1);
    if (length > 0) memcpy(copy, text, length);
    return copy;
}

char *wg_format(const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length < 0) abort();
    char *text = wg_alloc((size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}

bool wg_equal(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool wg_equal_ignoring_case(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcasecmp(a, b) == 0;
}

const char *wg_without_suffix(const char *text, const char *suffix) {
    size_t length = strlen(text), end = strlen(suffix);
    if (length < end || strcmp(text + length - end, suffix) != 0) return NULL;
    return wg_copy(text, length - end);
}

char *wg_escape(const char *text) {
    char *escaped = wg_alloc(3 * strlen(text) + 1), *to = escaped;
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        bool is_plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
                        (byte >= 'A' && byte <= 'Z') || strchr("-._~", byte);
        to += is_plain ? (*to = (char)byte, 1) : snprintf(to, 4, "%%%02X", byte);
    }
    return escaped;
}

abi_text abi_lower(const char *text) {
    if (text == NULL) text = "";
    return (abi_text){text, strlen(text)};
}

abi_texts abi_lower_texts(wg_texts texts) {
    abi_text *items = wg_alloc(texts.count * sizeof(abi_text));
    for (size_t i = 0; i < texts.count; i++) items[i] = abi_lower(texts.items[i]);
    return (abi_texts){items, texts.count};
}

abi_pairs abi_lower_pairs(wg_pairs pairs) {
    abi_pair *items = wg_alloc(pairs.count * sizeof(abi_pair));
    for (size_t i = 0; i < pairs.count; i++) {
        items[i] = (abi_pair){abi_lower(pairs.items[i].name), abi_lower(pairs.items[i].value)};
    }
    return (abi_pairs){items, pairs.count};
}

const char *abi_lift(abi_text text) { return text.length == 0 ? "" : text.data; }

wg_texts abi_lift_texts(abi_texts texts) {
    const char **items = wg_alloc(texts.count * sizeof(char *));
    for (size_t i = 0; i < texts.count; i++) items[i] = abi_lift(texts.items[i]);
    return (wg_texts){items, texts.count};
}

wg_pairs abi_lift_pairs(abi_pairs pairs) {
    wg_pair *items = wg_alloc(pairs.count * sizeof(wg_pair));
    for (size_t i = 0; i < pairs.count; i++) {
        items[i] = (wg_pair){abi_lift(pairs.items[i].name), abi_lift(pairs.items[i].value)};
    }
    return (wg_pairs){items, pairs.count};
}
