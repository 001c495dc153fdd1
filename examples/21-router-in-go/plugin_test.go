package main

import (
	"reflect"
	"testing"

	"witgate"
	"witgate/witgatetest"
)

func config() Config {
	return Config{
		Domain:  "example.com",
		Tenants: map[string]string{"blue": "web-1"},
		Moved:   map[string]string{"azure": "blue"},
	}
}

func route(t *testing.T, request *witgate.Request) witgate.Decision {
	t.Helper()
	router, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	return router.Route(request)
}

func TestATenantGoesToItsUpstream(t *testing.T) {
	request := witgatetest.NewRequest("GET", "https://blue.example.com/", "x-tenant", "forged")
	if got := route(t, request); !reflect.DeepEqual(got, witgate.ToUpstream("web-1")) {
		t.Errorf("%+v", got)
	}
	if got := request.Values("x-tenant"); !reflect.DeepEqual(got, []string{"blue"}) {
		t.Errorf("%q", got)
	}
}

func TestAMovedTenantIsRedirectedWithPortAndQuery(t *testing.T) {
	got := route(t, witgatetest.NewRequest("GET", "https://azure.example.com:8443/a?b=c"))
	if got.Status != 308 || got.Target != "https://blue.example.com:8443/a?b=c" {
		t.Errorf("%+v", got)
	}
}

func TestAnUnknownTenantGets404AndOtherHostsGoOn(t *testing.T) {
	if got := route(t, witgatetest.NewRequest("GET", "https://x.example.com/")); got.Status != 404 {
		t.Errorf("%+v", got)
	}
	if got := route(t, witgatetest.NewRequest("GET", "https://example.com/")); got.Kind != "" {
		t.Errorf("%+v", got)
	}
}

func TestAMistakeNamesItsKey(t *testing.T) {
	wrong := config()
	wrong.Moved["c"] = "d"
	_, err := New(wrong)
	if err == nil || err.Error() != "config.moved.c: `d` is not in config.tenants" {
		t.Error(err)
	}
}
