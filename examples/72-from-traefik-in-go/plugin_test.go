package main

import (
	"testing"

	"witgate/witgatetest"
)

func TestTheLanguageMovesOutOfThePath(t *testing.T) {
	plugin, err := New(Config{Languages: []string{"de", "en"}})
	if err != nil {
		t.Fatal(err)
	}
	request := witgatetest.NewRequest("GET", "https://example.com/en/shop/1", "accept-language", "fr")
	decision := plugin.OnRequest(request)
	if decision.Kind != "" || request.Path() != "/shop/1" || request.Get("accept-language") != "en" {
		t.Errorf("%+v %s %s", decision, request.Path(), request.Get("accept-language"))
	}
	decision = plugin.OnRequest(witgatetest.NewRequest("GET", "https://example.com/"))
	if decision.Status != 302 || decision.Target != "/de/" {
		t.Errorf("%+v", decision)
	}
	request = witgatetest.NewRequest("GET", "https://example.com/style.css")
	if decision = plugin.OnRequest(request); decision.Kind != "" || request.Path() != "/style.css" {
		t.Errorf("%+v %s", decision, request.Path())
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no language is too few")
	}
}
