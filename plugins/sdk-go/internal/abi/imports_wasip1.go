package abi

import "unsafe"

// The imports of the contract, wit/*.wit. What is not called is not linked, so that a plugin imports
// no more than its world has.

//go:wasmimport witgate:plugin/request@0.1.0 header
func requestHeader(name string, result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 header-values
func requestHeaderValues(name string, result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 header-names
func requestHeaderNames(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 set-header
func requestSetHeader(name, value string)

//go:wasmimport witgate:plugin/request@0.1.0 append-header
func requestAppendHeader(name, value string)

//go:wasmimport witgate:plugin/request@0.1.0 remove-header
func requestRemoveHeader(name string)

//go:wasmimport witgate:plugin/response@0.1.0 header
func responseHeader(name string, result unsafe.Pointer)

//go:wasmimport witgate:plugin/response@0.1.0 header-values
func responseHeaderValues(name string, result unsafe.Pointer)

//go:wasmimport witgate:plugin/response@0.1.0 header-names
func responseHeaderNames(result unsafe.Pointer)

//go:wasmimport witgate:plugin/response@0.1.0 set-header
func responseSetHeader(name, value string)

//go:wasmimport witgate:plugin/response@0.1.0 append-header
func responseAppendHeader(name, value string)

//go:wasmimport witgate:plugin/response@0.1.0 remove-header
func responseRemoveHeader(name string)

//go:wasmimport witgate:plugin/request@0.1.0 id
func requestID(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 method
func requestMethod(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 scheme
func requestScheme(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 authority
func requestAuthority(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 path
func requestPath(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 query
func requestQuery(result unsafe.Pointer)

//go:wasmimport witgate:plugin/request@0.1.0 set-method
func requestSetMethod(method string)

//go:wasmimport witgate:plugin/request@0.1.0 set-path
func requestSetPath(path string)

//go:wasmimport witgate:plugin/request@0.1.0 set-query
func requestSetQuery(has bool, query string)

//go:wasmimport witgate:plugin/request@0.1.0 set-authority
func requestSetAuthority(authority string)

//go:wasmimport witgate:plugin/response@0.1.0 status
func responseStatus() uint32

//go:wasmimport witgate:plugin/response@0.1.0 set-status
func responseSetStatus(status uint32)

//go:wasmimport witgate:plugin/response@0.1.0 source
func responseSource(result unsafe.Pointer)

//go:wasmimport witgate:plugin/connection@0.1.0 client-address
func connectionClientAddress(result unsafe.Pointer)

//go:wasmimport witgate:plugin/connection@0.1.0 http-version
func connectionHTTPVersion(result unsafe.Pointer)

//go:wasmimport witgate:plugin/connection@0.1.0 tls-server-name
func connectionTLSServerName(result unsafe.Pointer)

//go:wasmimport witgate:plugin/connection@0.1.0 tls-version
func connectionTLSVersion(result unsafe.Pointer)

//go:wasmimport witgate:plugin/connection@0.1.0 tls-alpn
func connectionTLSALPN(result unsafe.Pointer)

//go:wasmimport witgate:plugin/decision@0.1.0 to-upstream
func toUpstream(name string)

//go:wasmimport witgate:plugin/decision@0.1.0 redirect
func redirect(status uint32, location string)

//go:wasmimport witgate:plugin/decision@0.1.0 respond
func respond(status, headers, count, body, length uint32)

//go:wasmimport witgate:plugin/log@0.1.0 write
func logWrite(level, message string)

//go:wasmimport witgate:plugin/state@0.1.0 get
func stateGet(key string, result unsafe.Pointer)

//go:wasmimport witgate:plugin/state@0.1.0 set
func stateSet(key string, value, length uint32, expires bool, seconds uint32, result unsafe.Pointer)

//go:wasmimport witgate:plugin/state@0.1.0 remove
func stateRemove(key string)

//go:wasmimport witgate:plugin/state@0.1.0 increment
func stateIncrement(key string, by int64, expires bool, seconds uint32, result unsafe.Pointer)

//go:wasmimport witgate:plugin/http@0.1.0 send
func httpSend(method, url string, headers, count, body, length uint32, result unsafe.Pointer)

//go:wasmimport witgate:plugin/crypto@0.1.0 hmac
func cryptoHMAC(algorithm, secret string, data, length uint32, result unsafe.Pointer)

//go:wasmimport witgate:plugin/crypto@0.1.0 verify-hmac
func cryptoVerifyHMAC(algorithm, secret string, data, length, code, codeLength uint32, result unsafe.Pointer)

//go:wasmimport witgate:plugin/crypto@0.1.0 verify-signature
func cryptoVerifySignature(algorithm string, key, keyLength, data, length, signature, signatureLength uint32, result unsafe.Pointer)
