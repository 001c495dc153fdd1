package witgate

import "witgate/internal/abi"

// HMAC is the HMAC of data under the secret of this name in the plugin's stanza, which needs
// `grants: {hmac: [NAME]}` there. The key never enters the plugin. algorithm is sha256, sha384 or sha512.
// Errors are codes: unknown-algorithm, unknown-secret, denied.
func HMAC(algorithm, secret string, data []byte) ([]byte, error) {
	code, failure := abi.HMAC(algorithm, secret, data)
	return code, codeError(failure)
}

// VerifyHMAC says whether code is that HMAC, compared in constant time.
func VerifyHMAC(algorithm, secret string, data, code []byte) (bool, error) {
	isGood, failure := abi.VerifyHMAC(algorithm, secret, data, code)
	return isGood, codeError(failure)
}

// VerifySignature says whether signature is one of data under a public key. algorithm is a name of JSON Web
// Algorithms, such as RS256, ES256 or EdDSA; wit/crypto.wit has the form of each key. Errors are codes:
// unknown-algorithm, bad-key.
func VerifySignature(algorithm string, publicKey, data, signature []byte) (bool, error) {
	isGood, failure := abi.VerifySignature(algorithm, publicKey, data, signature)
	return isGood, codeError(failure)
}
