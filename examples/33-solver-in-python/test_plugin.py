import json
import unittest

from plugin import ExampleDns
from witgate.dns import Answer, Failure, Zone
from witgate.testing import with_server

SOLVER = ExampleDns({"api": "https://api.example/v1/"})
ZONE = Zone("example.com", "z1")


def answer(status, body=None):
    return Answer(status, [], b"" if body is None else json.dumps(body).encode())


class Tests(unittest.TestCase):
    def test_records_are_added_and_exactly_those_removed(self):
        def server(method, url, headers, body):
            self.assertIn(("authorization", "Bearer {{secret:token}}"), headers)
            if method == "POST":
                return answer(201, {"id": "r-" + json.loads(body)["content"]})
            return answer(204)

        with with_server(server):
            handle = SOLVER.present(ZONE, "n", ["one", "two"], 60)
            self.assertEqual(handle, "r-one r-two")
            SOLVER.cleanup(ZONE, "n", ["one", "two"], handle)

    def test_without_a_handle_only_our_values_are_removed(self):
        removed = []

        def server(method, url, headers, body):
            if method == "DELETE":
                removed.append(url.rsplit("/", 1)[1])
                return answer(204)
            records = [{"id": "a", "content": "one"}, {"id": "b", "content": "somebody else's"}]
            return answer(200, {"records": records})

        with with_server(server):
            SOLVER.cleanup(ZONE, "n", ["one", "two"], "")
        self.assertEqual(removed, ["a"])

    def test_the_provider_speaks_for_itself(self):
        with with_server(lambda *_: answer(403, {"error": "this token is read-only"})):
            with self.assertRaises(Failure) as caught:
                SOLVER.present(ZONE, "n", ["one"], 60)
        failure = caught.exception
        self.assertEqual((failure.code, failure.message), ("forbidden", "this token is read-only"))


if __name__ == "__main__":
    unittest.main()
