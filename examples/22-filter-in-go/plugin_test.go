package main

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"witgate"
	"witgate/witgatetest"
)

// sign makes a token with these claims.
func sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(body)
	code, err := witgate.HMAC("sha256", secret, []byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(code)
}

func ask(t *testing.T, claims map[string]any) (*witgate.Request, witgate.Decision) {
	t.Helper()
	witgatetest.Secrets(t, map[string][]byte{secret: []byte("a key of thirty-two bytes or more")})
	issuer := "login"
	filter, err := New(Config{Issuer: &issuer})
	if err != nil {
		t.Fatal(err)
	}
	request := witgatetest.NewRequest("GET", "https://example.com/", "x-user", "forged")
	if claims != nil {
		request.Set("authorization", "Bearer "+sign(t, claims))
	}
	return request, filter.OnRequest(request)
}

func TestAGoodTokenTellsTheApplicationWhoItIs(t *testing.T) {
	request, decision := ask(t, map[string]any{"sub": "ann", "iss": "login"})
	if decision.Kind != "" || request.Get("x-user") != "ann" || request.Has("authorization") {
		t.Errorf("%+v, x-user: %s", decision, request.Get("x-user"))
	}
}

func TestBadTokensAreRefusedWithTheReason(t *testing.T) {
	for reason, claims := range map[string]map[string]any{
		"expired":       {"sub": "ann", "iss": "login", "exp": 1},
		"wrong-issuer":  {"sub": "ann", "iss": "elsewhere"},
		"missing-token": nil,
	} {
		request, decision := ask(t, claims)
		if decision.Status != 401 || string(decision.Body) != `{"error":"`+reason+`"}` {
			t.Errorf("%s: %+v", reason, decision)
		}
		if request.Has("x-user") {
			t.Errorf("%s: the forged user got through", reason)
		}
	}
}

func TestCachesAreTold(t *testing.T) {
	response := witgatetest.NewResponse(200)
	(&JwtFilter{}).OnResponse(nil, response)
	if response.Get("vary") != "authorization" {
		t.Error(response.Names())
	}
}

func TestAKeyThatIsMissingIsALoadError(t *testing.T) {
	if _, err := New(Config{}); err == nil || err.Error() != "secrets.key: unknown-secret" {
		t.Error(err)
	}
}
