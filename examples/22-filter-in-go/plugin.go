// A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of RFC
// 7518), and hands its claims to the application as fields. The application need not know about
// tokens, and cannot be told lies by clients.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"witgate"
	"witgate/filter"
)

// Config is `config:` of the stanza.
type Config struct {
	// The `iss` that tokens must have; none takes any.
	Issuer *string `json:"issuer"`
	// The `aud` that tokens must have, alone or in a list; none takes any.
	Audience *string `json:"audience"`
	// Which claim becomes which field of the request.
	Claims map[string]string `json:"claims"`
	// Seconds by which clocks may differ.
	Leeway uint32 `json:"leeway"`
	// Whether the application gets the token too.
	KeepToken bool `json:"keep-token"`
}

// JwtFilter is the plugin, configured.
type JwtFilter struct{ Config }

// New makes the plugin.
func New(config Config) (*JwtFilter, error) {
	// Better now than at the first request.
	if _, err := witgate.HMAC("sha256", secret, nil); err != nil {
		return nil, fmt.Errorf("secrets.key: %w", err)
	}
	if config.Claims == nil {
		config.Claims = map[string]string{"sub": "x-user"}
	}
	for claim, name := range config.Claims {
		if !canBeSet(name) {
			return nil, fmt.Errorf("config.claims.%s: `%s` is no field that can be set", claim, name)
		}
	}
	return &JwtFilter{config}, nil
}

// OnRequest admits or refuses.
func (f *JwtFilter) OnRequest(request *witgate.Request) witgate.Decision {
	// Only the token may say who the client is.
	for _, name := range f.Claims {
		request.Del(name)
	}
	fields, err := f.admit(request.Get("authorization"))
	if err != nil {
		return refusal(err.Error())
	}
	for name, value := range fields {
		request.Set(name, value)
	}
	if !f.KeepToken {
		request.Del("authorization")
	}
	return witgate.Continue
}

// OnResponse tells caches: what one user may see must not come out of them for another.
func (f *JwtFilter) OnResponse(_ *witgate.Request, response *witgate.Response) {
	response.Add("vary", "authorization")
}

// admit returns the fields that good credentials give the request.
func (f *JwtFilter) admit(credentials string) (map[string]string, error) {
	scheme, token, _ := strings.Cut(credentials, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, errors.New("missing-token")
	}
	claims, err := verify(token)
	if err != nil {
		return nil, err
	}
	if err := f.check(claims); err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for claim, name := range f.Claims {
		text, isText := asText(claims[claim])
		if !isText {
			return nil, errors.New("malformed-claim")
		}
		if text != nil {
			fields[name] = *text
		}
	}
	return fields, nil
}

// check looks at times, issuer and audience (RFC 7519, section 4.1).
func (f *JwtFilter) check(claims map[string]any) error {
	now := float64(time.Now().UnixMilli()) / 1000
	for _, name := range []string{"exp", "nbf"} {
		value, has := claims[name]
		if !has {
			continue
		}
		number, isNumber := value.(json.Number)
		at, err := number.Float64()
		switch {
		case !isNumber || err != nil:
			return errors.New("malformed-claim")
		case name == "exp" && now >= at+float64(f.Leeway):
			return errors.New("expired")
		case name == "nbf" && now < at-float64(f.Leeway):
			return errors.New("not-yet-valid")
		}
	}
	if f.Issuer != nil && claims["iss"] != any(*f.Issuer) {
		return errors.New("wrong-issuer")
	}
	if f.Audience != nil {
		several, isList := claims["aud"].([]any)
		if !isList {
			several = []any{claims["aud"]}
		}
		if !slices.Contains(several, any(*f.Audience)) {
			return errors.New("wrong-audience")
		}
	}
	return nil
}

// asText is a claim as the value of a field: nil when it is absent, false when it cannot be one.
func asText(claim any) (*string, bool) {
	var text string
	switch claim := claim.(type) {
	case nil:
		return nil, true
	case bool:
		text = strconv.FormatBool(claim)
	case json.Number:
		if strings.ContainsAny(claim.String(), ".eE") {
			return nil, false
		}
		text = claim.String()
	case string:
		isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
		if strings.ContainsFunc(claim, isControl) || strings.Trim(claim, " ") != claim {
			return nil, false
		}
		text = claim
	default:
		return nil, false
	}
	return &text, true
}

// canBeSet says whether a name is one of a field that the gateway does not keep for itself.
func canBeSet(name string) bool {
	if name == "" || slices.Contains(owned, strings.ToLower(name)) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		isAlphanumeric := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !isAlphanumeric && !strings.ContainsRune("!#$%&'*+.^_`|~-", r)
	})
}

var owned = strings.Fields("connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length host")

// refusal is 401 with the reason for the client (RFC 6750, section 3).
func refusal(reason string) witgate.Decision {
	challenge := "Bearer"
	if reason != "missing-token" {
		challenge += fmt.Sprintf(` error="invalid_token", error_description="%s"`, reason)
	}
	body, _ := json.Marshal(map[string]string{"error": reason})
	return witgate.Respond(401, map[string]string{
		"content-type":     "application/json",
		"www-authenticate": challenge,
	}, body)
}

func init() { filter.Export(New) }

func main() {}
