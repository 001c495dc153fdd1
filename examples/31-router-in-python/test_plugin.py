import unittest

from plugin import TenantRouter
from witgate import redirect, to_upstream
from witgate.testing import Request

CONFIG = {"domain": "example.com", "tenants": {"blue": "web-1"}, "moved": {"azure": "blue"}}


class Tests(unittest.TestCase):
    def test_a_tenant_goes_to_its_upstream(self):
        request = Request("https://blue.example.com/", {"x-tenant": "forged"})
        self.assertEqual(TenantRouter(CONFIG).route(request), to_upstream("web-1"))
        self.assertEqual(request["x-tenant"], "blue")

    def test_a_moved_tenant_is_redirected_with_port_and_query(self):
        decision = TenantRouter(CONFIG).route(Request("https://azure.example.com:8443/a?b=c"))
        self.assertEqual(decision, redirect(308, "https://blue.example.com:8443/a?b=c"))

    def test_an_unknown_tenant_gets_404_and_other_hosts_go_on(self):
        decision = TenantRouter(CONFIG).route(Request("https://x.example.com/"))
        self.assertEqual(decision.status, 404)
        self.assertIsNone(TenantRouter(CONFIG).route(Request("https://example.com/")))

    def test_a_mistake_names_its_key(self):
        with self.assertRaisesRegex(ValueError, r"config\.moved\.c: `d`"):
            TenantRouter(CONFIG | {"moved": {"c": "d"}})


if __name__ == "__main__":
    unittest.main()
