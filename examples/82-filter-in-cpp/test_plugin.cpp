#include "testing.h"
#include "token.hpp"

#include <string>

// The gateway's part. It need not be SHA-256 to be right or wrong.
static wg_bytes keyed(const char *algorithm, const char *secret, wg_bytes data) {
    auto *code = static_cast<uint8_t *>(wg_alloc(32));
    EXPECT(wg_equal(algorithm, "sha256") && wg_equal(secret, "key"));
    for (size_t i = 0; i < 32 + data.length; i++) {
        code[i % 32] = static_cast<uint8_t>(code[i % 32] * 31 + (i < data.length ? data.data[i] : 7) + i);
    }
    return {code, 32};
}

static void ask(const std::optional<std::string> &claims) {
    test_request("https://example.com/");
    wg_request_set_header("x-user", "forged");
    if (claims) wg_request_set_header("authorization", ("Bearer " + token::sign(*claims)).c_str());
    plugin_on_request();
}

int main() {
    // A key that is missing is a load error.
    EXPECT(wg_equal(test_configure("{}"), "secrets.key: unknown-secret"));

    test_hmac = keyed;
    EXPECT(test_configure(R"({"issuer":"login"})") == nullptr);

    // A good token tells the application who it is.
    ask(R"({"sub":"ann","iss":"login"})");
    EXPECT(wg_equal(test_decision, ""));
    EXPECT(wg_equal(wg_request_header("x-user"), "ann"));
    EXPECT(wg_request_header("authorization") == nullptr);

    // Bad tokens are refused with the reason.
    ask(R"({"sub":"ann","iss":"login","exp":1})");
    EXPECT(test_status == 401 && wg_equal(test_body, R"({"error":"expired"})"));
    ask(R"({"sub":"ann","iss":"elsewhere"})");
    EXPECT(test_status == 401 && wg_equal(test_body, R"({"error":"wrong-issuer"})"));
    ask(std::nullopt);
    EXPECT(test_status == 401 && wg_equal(test_body, R"({"error":"missing-token"})"));
    EXPECT(wg_request_header("x-user") == nullptr);

    // Caches are told.
    test_response(200);
    plugin_on_response();
    EXPECT(wg_equal(wg_response_header("vary"), "authorization"));
}
