package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"witgate/dns"
	"witgate/witgatetest"
)

var (
	zone   = dns.Zone{Name: "example.com", Handle: "z1"}
	values = []string{"one", "two"}
)

func solver(t *testing.T) *ExampleDNS {
	t.Helper()
	solver, err := New(Config{API: "https://api.example/v1/"})
	if err != nil {
		t.Fatal(err)
	}
	return solver
}

func TestRecordsAreAddedAndExactlyThoseRemoved(t *testing.T) {
	witgatetest.Serve(t, func(sent witgatetest.Sent) (int, any) {
		if sent.Header["authorization"] != "Bearer {{secret:token}}" {
			t.Errorf("authorized by %q", sent.Header["authorization"])
		}
		if sent.Method == "DELETE" {
			return 204, nil
		}
		var record entry
		sent.Decode(t, &record)
		return 201, entry{ID: "r-" + record.Content}
	})
	handle, err := solver(t).Present(zone, "n", values, 60)
	if err != nil || handle != "r-one r-two" {
		t.Fatal(handle, err)
	}
	if err := solver(t).Cleanup(zone, "n", values, handle); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutAHandleOnlyOurValuesAreRemoved(t *testing.T) {
	var removed []string
	witgatetest.Serve(t, func(sent witgatetest.Sent) (int, any) {
		if sent.Method == "DELETE" {
			removed = append(removed, sent.URL[strings.LastIndexByte(sent.URL, '/')+1:])
			return 204, nil
		}
		records := []entry{{ID: "a", Content: "one"}, {ID: "b", Content: "somebody else's"}}
		return 200, map[string]any{"records": records}
	})
	if err := solver(t).Cleanup(zone, "n", values, ""); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(removed, []string{"a"}) {
		t.Error(removed)
	}
}

func TestTheProviderSpeaksForItself(t *testing.T) {
	witgatetest.Serve(t, func(witgatetest.Sent) (int, any) {
		return 403, map[string]string{"error": "this token is read-only"}
	})
	_, err := solver(t).Present(zone, "n", values, 60)
	var failure *dns.Failure
	if !errors.As(err, &failure) || failure.Code != "forbidden" || failure.Message != "this token is read-only" {
		t.Error(err)
	}
}
