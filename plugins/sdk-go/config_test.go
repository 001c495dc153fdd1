package witgate

import "testing"

func TestEveryMistakeNamesItsKey(t *testing.T) {
	type config struct {
		Domain  string            `json:"domain"`
		Tenants map[string]string `json:"tenants"`
		Ports   []uint16          `json:"ports"`
		Leeway  *int              `json:"leeway"`
		Inner   struct {
			On bool `json:"on"`
		} `json:"inner"`
	}
	for text, expected := range map[string]string{
		`{"domain":5}`:           "config.domain: a text was expected, not 5",
		`{"tenants":{"blue":5}}`: "config.tenants.blue: a text was expected, not 5",
		`{"tenants":["a"]}`:      `config.tenants: a map was expected, not ["a"]`,
		`{"ports":[1,70000]}`:    "config.ports[1]: a whole number, zero or more, was expected, not 70000",
		`{"leeway":"much"}`:      `config.leeway: a whole number was expected, not "much"`,
		`{"leeway":1.5}`:         "config.leeway: a whole number was expected, not 1.5",
		`{"inner":{"on":"yes"}}`: `config.inner.on: true or false was expected, not "yes"`,
		`{"inner":{"off":true}}`: "config.inner.off: unknown key, expected one of on",
		`{"Domain":"a"}`:         "config.Domain: unknown key, expected one of domain, inner, leeway, ports, tenants",
		`[1]`:                    "config: a map was expected, not [1]",
	} {
		if _, err := DecodeConfig[config](text); err == nil || err.Error() != expected {
			t.Errorf("%s: %v", text, err)
		}
	}
	good, err := DecodeConfig[config](`{"domain":"a","tenants":{"b":"c"},"ports":[1],"leeway":2,"inner":{"on":true}}`)
	if err != nil || good.Domain != "a" || good.Tenants["b"] != "c" || *good.Leeway != 2 || !good.Inner.On {
		t.Error(good, err)
	}
	if empty, err := DecodeConfig[config]("null"); err != nil || empty.Tenants != nil {
		t.Error(empty, err)
	}
}
