import json
import unittest

from plugin import JwtFilter
from token_hs256 import sign
from witgate.testing import Request, Response, with_secrets

SECRETS = {"key": b"a key of thirty-two bytes or more"}


def ask(claims):
    with with_secrets(SECRETS):
        headers = {"x-user": "forged"}
        if claims is not None:
            headers["authorization"] = f"Bearer {sign(claims)}"
        request = Request("https://example.com/", headers)
        return request, JwtFilter({"issuer": "login"}).on_request(request)


class Tests(unittest.TestCase):
    def refused(self, decision, reason):
        self.assertEqual((decision.status, json.loads(decision.body)), (401, {"error": reason}))

    def test_a_good_token_tells_the_application_who_it_is(self):
        request, decision = ask({"sub": "ann", "iss": "login"})
        self.assertIsNone(decision)
        self.assertEqual(request["x-user"], "ann")
        self.assertNotIn("authorization", request)

    def test_bad_tokens_are_refused_with_the_reason(self):
        self.refused(ask({"sub": "ann", "iss": "login", "exp": 1})[1], "expired")
        self.refused(ask({"sub": "ann", "iss": "elsewhere"})[1], "wrong-issuer")
        self.refused(ask(None)[1], "missing-token")

    def test_caches_are_told(self):
        response = Response(200)
        with with_secrets(SECRETS):
            JwtFilter(None).on_response(Request("https://example.com/"), response)
        self.assertEqual(response["vary"], "authorization")

    def test_a_key_that_is_missing_is_a_load_error(self):
        with with_secrets({}), self.assertRaisesRegex(ValueError, "^secrets.key: unknown-secret"):
            JwtFilter(None)


if __name__ == "__main__":
    unittest.main()
