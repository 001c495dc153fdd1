//go:build !wasip1

package abi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"os"
	"strconv"
)

// Log writes to standard error, where `go test` shows it.
func Log(level, message string) { fmt.Fprintf(os.Stderr, "%s: %s\n", level, message) }

// Server answers for the world outside; witgatetest sets it.
var Server func(method, url string, headers []Pair, body []byte) (Answer, *Failure)

// Send asks Server.
func Send(method, url string, headers []Pair, body []byte) (Answer, *Failure) {
	if Server == nil {
		panic("there is no gateway here: a test calls witgatetest.Serve first")
	}
	return Server(method, url, headers, body)
}

var state = map[string][]byte{}

// StateGet reads a map in memory.
func StateGet(key string) ([]byte, bool) {
	value, has := state[key]
	return value, has
}

// StateSet writes a map in memory; nothing expires.
func StateSet(key string, value []byte, _ uint32) string {
	state[key] = value
	return ""
}

// StateRemove forgets a key.
func StateRemove(key string) { delete(state, key) }

// StateIncrement counts in a map in memory.
func StateIncrement(key string, by int64, _ uint32) (int64, string) {
	value := int64(0)
	if text, has := state[key]; has {
		var err error
		if value, err = strconv.ParseInt(string(text), 10, 64); err != nil {
			return 0, "not-a-counter"
		}
	}
	value += by
	state[key] = strconv.AppendInt(nil, value, 10)
	return value, ""
}

// Secrets are what HMACs are made with; witgatetest sets them.
var Secrets map[string][]byte

// Signatures judges signatures; witgatetest sets it.
var Signatures func(algorithm string, key, data, signature []byte) bool

// HMAC makes it with one of Secrets.
func HMAC(algorithm, secret string, data []byte) ([]byte, string) {
	makers := map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}
	maker, isKnown := makers[algorithm]
	if !isKnown {
		return nil, "unknown-algorithm"
	}
	key, has := Secrets[secret]
	if !has {
		return nil, "unknown-secret"
	}
	code := hmac.New(maker, key)
	code.Write(data)
	return code.Sum(nil), ""
}

// VerifyHMAC compares with HMAC.
func VerifyHMAC(algorithm, secret string, data, code []byte) (bool, string) {
	expected, failure := HMAC(algorithm, secret, data)
	return failure == "" && hmac.Equal(expected, code), failure
}

// VerifySignature asks Signatures.
func VerifySignature(algorithm string, key, data, signature []byte) (bool, string) {
	if Signatures == nil {
		panic("there is no gateway here: a test calls witgatetest.Signatures first")
	}
	return Signatures(algorithm, key, data, signature), ""
}
