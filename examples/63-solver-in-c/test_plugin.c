#include "testing.h"

#include <string.h>

static const wg_zone zone = {"example.com", "z1"};
static const char *items[] = {"one", "two"};
static const wg_texts values = {items, 2};
static const char *removed = "";

static test_answer serve(test_sent sent) {
    EXPECT(wg_equal(sent.authorization, "Bearer {{secret:token}}"));
    if (wg_equal(sent.method, "DELETE")) {
        removed = wg_format("%s %s", removed, strrchr(sent.url, '/') + 1);
        return (test_answer){204, ""};
    }
    if (wg_equal(sent.method, "GET")) {
        return (test_answer){200, "{\"records\":[{\"id\":\"a\",\"content\":\"one\"},{\"id\":\"b\",\"content\":\"somebody else's\"}]}"};
    }
    return (test_answer){201, wg_format("{\"id\":\"r-%s\"}", wg_json_text(sent.json, "content"))};
}

static test_answer refuse(test_sent sent) {
    (void)sent;
    return (test_answer){403, "{\"error\":\"this token is read-only\"}"};
}

int main(void) {
    const char *handle = "";
    EXPECT(test_configure("{\"api\":\"https://api.example/v1/\"}") == NULL);
    test_server = serve;

    /* Records are added and exactly those removed. */
    EXPECT(plugin_present(zone, "n", values, 60, &handle) == NULL);
    EXPECT(wg_equal(handle, "r-one r-two"));
    EXPECT(plugin_cleanup(zone, "n", values, handle) == NULL);
    EXPECT(wg_equal(removed, " r-one r-two"));

    /* Without a handle only our values are removed. */
    removed = "";
    EXPECT(plugin_cleanup(zone, "n", values, "") == NULL);
    EXPECT(wg_equal(removed, " a"));

    /* The provider speaks for itself. */
    test_server = refuse;
    const wg_failure *failure = plugin_present(zone, "n", values, 60, &handle);
    EXPECT(failure != NULL && wg_equal(failure->code, "forbidden"));
    EXPECT(wg_equal(failure->message, "this token is read-only"));
    return 0;
}
