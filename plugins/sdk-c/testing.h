/* Stands in for the gateway in a plugin's own tests: compile plugin.c, the tests and the *.c in build/witgate with
 * the C compiler of your machine.
 */
#ifndef WITGATE_TESTING_H
#define WITGATE_TESTING_H

#include "witgate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fails the test with its place when something does not hold. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) test_failed(__FILE__, __LINE__, #condition);                             \
    } while (0)

void test_failed(const char *file, int line, const char *condition);
/* `plugin_configure` with JSON text; its error. */
const char *test_configure(const char *json);
/* The request in hand from now on; what was decided before is forgotten. `url` is absolute. */
void test_request(const char *url);
/* The response in hand from now on. */
void test_response(unsigned status);

/* What was decided: "", "upstream", "redirect" or "respond". */
extern const char *test_decision;
extern unsigned test_status;
/* The upstream, or the location. */
extern const char *test_target;
extern const char *test_body;

/* Makes HMACs and judges signatures from now on; without them every secret is unknown, and no signature good. */
extern wg_bytes (*test_hmac)(const char *algorithm, const char *secret, wg_bytes data);
extern bool (*test_signature)(const char *algorithm, wg_bytes public_key, wg_bytes data, wg_bytes signature);

/* A request that was sent, and what to answer. */
typedef struct {
    const char *method, *url, *authorization;
    const wg_json *json;
} test_sent;
typedef struct {
    unsigned status;
    const char *body;
} test_answer;
/* Answers requests from now on. */
extern test_answer (*test_server)(test_sent sent);

#ifdef __cplusplus
}
#endif
#endif
