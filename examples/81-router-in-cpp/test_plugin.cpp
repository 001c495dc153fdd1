#include "testing.h"

#include <string>

int main() {
    // A mistake names its key.
    std::string error = test_configure(R"({"domain":"a.example","tenants":{"b":"w"},"moved":{"c":"d"}})");
    EXPECT(error == "config.moved.c: `d` is not in config.tenants");

    EXPECT(test_configure(R"({"domain":"example.com","tenants":{"blue":"web-1"},"moved":{"azure":"blue"}})") == nullptr);

    // A tenant goes to its upstream.
    test_request("https://blue.example.com/");
    wg_request_set_header("x-tenant", "forged");
    plugin_route();
    EXPECT(wg_equal(test_decision, "upstream") && wg_equal(test_target, "web-1"));
    EXPECT(wg_request_header_values("x-tenant").count == 1);
    EXPECT(wg_equal(wg_request_header("x-tenant"), "blue"));

    // A moved tenant is redirected with port and query.
    test_request("https://azure.example.com:8443/a?b=c");
    plugin_route();
    EXPECT(wg_equal(test_decision, "redirect") && test_status == 308);
    EXPECT(wg_equal(test_target, "https://blue.example.com:8443/a?b=c"));

    // An unknown tenant gets 404, and other hosts go on.
    test_request("https://x.example.com/");
    plugin_route();
    EXPECT(wg_equal(test_decision, "respond") && test_status == 404);
    EXPECT(wg_equal(test_body, R"({"error":"unknown tenant","tenant":"x"})"));
    test_request("https://example.com/");
    plugin_route();
    EXPECT(wg_equal(test_decision, ""));
}
