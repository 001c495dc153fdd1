package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"witgate"
)

// secret is the name of the one that tokens are signed with. It stays in the gateway, which checks signatures.
const secret = "key"

// verify returns the claims of a compact JSON Web Signature with HMAC-SHA256 (RFC 7515, RFC 7518 section
// 3.2), once its signature has been found good.
func verify(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("malformed-token")
	}
	header, err := asMap(parts[0])
	if err != nil {
		return nil, err
	}
	// The token does not get to choose how it is checked: there is no `none` here.
	if header["alg"] != any("HS256") {
		return nil, errors.New("unsupported-algorithm")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, errors.New("malformed-token")
	}
	// New has seen that the key is there.
	isGood, err := witgate.VerifyHMAC("sha256", secret, []byte(parts[0]+"."+parts[1]), signature)
	if err != nil || !isGood {
		return nil, errors.New("bad-signature")
	}
	return asMap(parts[1])
}

func asMap(part string) (map[string]any, error) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, errors.New("malformed-token")
	}
	var found map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	// Not float64, which large numbers do not survive.
	decoder.UseNumber()
	if err := decoder.Decode(&found); err != nil || found == nil {
		return nil, errors.New("malformed-token")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("malformed-token")
	}
	return found, nil
}
