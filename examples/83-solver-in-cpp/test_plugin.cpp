#include "testing.h"

#include <string>

static const wg_zone zone = {"example.com", "z1"};
static const char *items[] = {"one", "two"};
static const wg_texts values = {items, 2};
static std::string removed;

static test_answer serve(test_sent sent) {
    EXPECT(wg_equal(sent.authorization, "Bearer {{secret:token}}"));
    std::string method = sent.method, url = sent.url;
    if (method == "DELETE") {
        removed += " " + url.substr(url.rfind('/') + 1);
        return {204, ""};
    }
    if (method == "GET") return {200, R"({"records":[{"id":"a","content":"one"},{"id":"b","content":"somebody else's"}]})"};
    return {201, wg_format("{\"id\":\"r-%s\"}", wg_json_text(sent.json, "content"))};
}

static test_answer refuse(test_sent) { return {403, R"({"error":"this token is read-only"})"}; }

int main() {
    const char *handle = "";
    EXPECT(test_configure(R"({"api":"https://api.example/v1/"})") == nullptr);
    test_server = serve;

    // Records are added and exactly those removed.
    EXPECT(plugin_present(zone, "n", values, 60, &handle) == nullptr);
    EXPECT(wg_equal(handle, "r-one r-two"));
    EXPECT(plugin_cleanup(zone, "n", values, handle) == nullptr);
    EXPECT(removed == " r-one r-two");

    // Without a handle only our values are removed.
    removed.clear();
    EXPECT(plugin_cleanup(zone, "n", values, "") == nullptr);
    EXPECT(removed == " a");

    // The provider speaks for itself.
    test_server = refuse;
    const wg_failure *failure = plugin_present(zone, "n", values, 60, &handle);
    EXPECT(failure != nullptr && wg_equal(failure->code, "forbidden"));
    EXPECT(wg_equal(failure->message, "this token is read-only"));
}
