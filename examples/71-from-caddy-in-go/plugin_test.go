package main

import (
	"testing"

	"witgate/witgatetest"
)

func TestOnlyThoseWhoWorkOnItGetThrough(t *testing.T) {
	// Requests of witgatetest come from 192.0.2.1.
	request := witgatetest.NewRequest("GET", "https://example.com/")
	for _, allow := range []string{"192.0.2.1", "192.0.2.0/24"} {
		plugin, err := New(Config{Allow: []string{allow}})
		if err != nil {
			t.Fatal(err)
		}
		if decision := plugin.OnRequest(request); decision.Kind != "" {
			t.Errorf("%s: %+v", allow, decision)
		}
	}
	plugin, _ := New(Config{Allow: []string{"198.51.100.0/24"}, RetryAfter: 60})
	decision := plugin.OnRequest(request)
	if decision.Status != 503 || decision.Header["retry-after"] != "60" {
		t.Errorf("%+v", decision)
	}
	if _, err := New(Config{Allow: []string{"nowhere"}}); err == nil {
		t.Error("nowhere is no address")
	}
}
