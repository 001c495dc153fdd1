#include "testing.h"
#include "token.h"

#include <string.h>

static const char *key = "a key of thirty-two bytes or more";

static void ask(const char *claims) {
    test_request("https://example.com/");
    wg_request_set_header("x-user", "forged");
    if (claims != NULL) wg_request_set_header("authorization", wg_format("Bearer %s", token_sign(claims, key)));
    plugin_on_request();
}

static void expect_digest(size_t length, const char *expected) {
    uint8_t message[1000], digest[32];
    const char *text = "";
    for (size_t i = 0; i < length; i++) message[i] = (uint8_t)(i * 7);
    token_sha256(message, length, digest);
    for (int i = 0; i < 4; i++) text = wg_format("%s%02x", text, digest[i]);
    EXPECT(wg_equal(text, expected));
}

int main(void) {
    /* A short key is a load error. */
    EXPECT(strncmp(test_configure("{\"key\":\"short\"}"), "config.key: ", 12) == 0);

    EXPECT(test_configure(wg_format("{\"key\":\"%s\",\"issuer\":\"login\"}", key)) == NULL);

    /* A good token tells the application who it is. */
    ask("{\"sub\":\"ann\",\"iss\":\"login\"}");
    EXPECT(wg_equal(test_decision, ""));
    EXPECT(wg_equal(wg_request_header("x-user"), "ann"));
    EXPECT(wg_request_header("authorization") == NULL);

    /* Bad tokens are refused with the reason. */
    ask("{\"sub\":\"ann\",\"iss\":\"login\",\"exp\":1}");
    EXPECT(test_status == 401 && wg_equal(test_body, "{\"error\":\"expired\"}"));
    ask("{\"sub\":\"ann\",\"iss\":\"elsewhere\"}");
    EXPECT(test_status == 401 && wg_equal(test_body, "{\"error\":\"wrong-issuer\"}"));
    ask(NULL);
    EXPECT(test_status == 401 && wg_equal(test_body, "{\"error\":\"missing-token\"}"));
    EXPECT(wg_request_header("x-user") == NULL);

    /* Caches are told. */
    test_response(200);
    plugin_on_response();
    EXPECT(wg_equal(wg_response_header("vary"), "authorization"));

    /* SHA-256 is that of everybody else: the first four bytes for messages around the size of a block. */
    expect_digest(0, "e3b0c442");
    expect_digest(1, "6e340b9c");
    expect_digest(55, "576a1bf8");
    expect_digest(56, "9b20501d");
    expect_digest(63, "30b34590");
    expect_digest(64, "d8bc63b4");
    expect_digest(65, "1ee23b0f");
    expect_digest(1000, "89f4ff56");
    return 0;
}
