package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// verify returns the claims of a compact JSON Web Signature with HMAC-SHA256 (RFC 7515, RFC 7518 section
// 3.2), once its signature has been found good.
func verify(token string, key []byte) (map[string]any, error) {
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
	if !hmac.Equal(signature, mac(parts[0]+"."+parts[1], key)) {
		return nil, errors.New("bad-signature")
	}
	return asMap(parts[1])
}

// sign makes a token with these claims, for tests.
func sign(claims map[string]any, key []byte) string {
	body, _ := json.Marshal(claims)
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(body)
	return signed + "." + encode(mac(signed, key))
}

func mac(text string, key []byte) []byte {
	hash := hmac.New(sha256.New, key)
	hash.Write([]byte(text))
	return hash.Sum(nil)
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
