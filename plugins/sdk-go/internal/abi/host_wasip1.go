package abi

import "unsafe"

// TheRequest is the request in hand.
type TheRequest struct{}

// TheResponse is the response in hand.
type TheResponse struct{}

func (TheRequest) Header(name string) (string, bool) {
	requestHeader(name, result())
	return optional()
}

func (TheRequest) HeaderValues(name string) []string {
	requestHeaderValues(name, result())
	return settled(Texts(word(0), word(4)))
}

func (TheRequest) HeaderNames() []string {
	requestHeaderNames(result())
	return settled(Texts(word(0), word(4)))
}

func (TheRequest) SetHeader(name, value string) { requestSetHeader(name, value) }

func (TheRequest) AppendHeader(name, value string) { requestAppendHeader(name, value) }

func (TheRequest) RemoveHeader(name string) { requestRemoveHeader(name) }

func (TheResponse) Header(name string) (string, bool) {
	responseHeader(name, result())
	return optional()
}

func (TheResponse) HeaderValues(name string) []string {
	responseHeaderValues(name, result())
	return settled(Texts(word(0), word(4)))
}

func (TheResponse) HeaderNames() []string {
	responseHeaderNames(result())
	return settled(Texts(word(0), word(4)))
}

func (TheResponse) SetHeader(name, value string) { responseSetHeader(name, value) }

func (TheResponse) AppendHeader(name, value string) { responseAppendHeader(name, value) }

func (TheResponse) RemoveHeader(name string) { responseRemoveHeader(name) }

func (TheRequest) ID() string {
	requestID(result())
	return settled(textAt(0))
}

func (TheRequest) Method() string {
	requestMethod(result())
	return settled(textAt(0))
}

func (TheRequest) Scheme() string {
	requestScheme(result())
	return settled(textAt(0))
}

func (TheRequest) Authority() string {
	requestAuthority(result())
	return settled(textAt(0))
}

func (TheRequest) Path() string {
	requestPath(result())
	return settled(textAt(0))
}

func (TheRequest) Query() (string, bool) {
	requestQuery(result())
	return optional()
}

func (TheRequest) SetMethod(method string) { requestSetMethod(method) }

func (TheRequest) SetPath(path string) { requestSetPath(path) }

func (TheRequest) SetQuery(query string, has bool) { requestSetQuery(has, query) }

func (TheRequest) SetAuthority(authority string) { requestSetAuthority(authority) }

func (TheRequest) ClientAddress() string {
	connectionClientAddress(result())
	return settled(textAt(0))
}

func (TheRequest) HTTPVersion() string {
	connectionHTTPVersion(result())
	return settled(textAt(0))
}

func (TheRequest) TLSServerName() string {
	connectionTLSServerName(result())
	text, _ := optional()
	return text
}

func (TheRequest) TLSVersion() string {
	connectionTLSVersion(result())
	text, _ := optional()
	return text
}

func (TheRequest) TLSALPN() string {
	connectionTLSALPN(result())
	text, _ := optional()
	return text
}

func (TheResponse) Status() int { return int(responseStatus()) }

func (TheResponse) SetStatus(status int) { responseSetStatus(uint32(status)) }

func (TheResponse) Source() string {
	responseSource(result())
	return settled(textAt(0))
}

// ToUpstream is `decision.to-upstream`.
func ToUpstream(name string) { toUpstream(name) }

// Redirect is `decision.redirect`.
func Redirect(status int, location string) { redirect(uint32(status), location) }

// Respond is `decision.respond`.
func Respond(status int, headers []Pair, body []byte) {
	Result(0)
	list, count := lowerPairs(headers)
	address, length := lowerBytes(body)
	respond(uint32(status), list, count, address, length)
}

// Log is `log.write`.
func Log(level, message string) { logWrite(level, message) }

// StateGet is `state.get`.
func StateGet(key string) ([]byte, bool) {
	stateGet(key, result())
	if !isSet(0) {
		return settled[[]byte](nil), false
	}
	return settled(Bytes(word(4), word(8))), true
}

// StateSet is `state.set`; it returns the code of the error, or nothing.
func StateSet(key string, value []byte, seconds uint32) string {
	Result(0)
	address, length := lowerBytes(value)
	stateSet(key, address, length, seconds > 0, seconds, result())
	code, _ := optional()
	return code
}

// StateRemove is `state.remove`.
func StateRemove(key string) { stateRemove(key) }

// StateIncrement is `state.increment`; it returns the new value, or the code of the error.
func StateIncrement(key string, by int64, seconds uint32) (int64, string) {
	stateIncrement(key, by, seconds > 0, seconds, result())
	if isSet(0) {
		return 0, settled(textAt(8))
	}
	return settled(*(*int64)(unsafe.Add(unsafe.Pointer(&area), 8))), ""
}

// Send is `http.send`.
func Send(method, url string, headers []Pair, body []byte) (Answer, *Failure) {
	Result(0)
	list, count := lowerPairs(headers)
	address, length := lowerBytes(body)
	httpSend(method, url, list, count, address, length, result())
	if isSet(0) {
		return Answer{}, settled(&Failure{Code: textAt(4), Message: textAt(12)})
	}
	return settled(Answer{int(short(4)), pairs(word(8), word(12)), Bytes(word(16), word(20))}), nil
}

// HMAC is `crypto.hmac`; it returns the code, or the code of the error.
func HMAC(algorithm, secret string, data []byte) ([]byte, string) {
	Result(0)
	address, length := lowerBytes(data)
	cryptoHMAC(algorithm, secret, address, length, result())
	if isSet(0) {
		return nil, settled(textAt(4))
	}
	return settled(Bytes(word(4), word(8))), ""
}

// VerifyHMAC is `crypto.verify-hmac`.
func VerifyHMAC(algorithm, secret string, data, code []byte) (bool, string) {
	Result(0)
	address, length := lowerBytes(data)
	codeAddress, codeLength := lowerBytes(code)
	cryptoVerifyHMAC(algorithm, secret, address, length, codeAddress, codeLength, result())
	return verdict()
}

// VerifySignature is `crypto.verify-signature`.
func VerifySignature(algorithm string, key, data, signature []byte) (bool, string) {
	Result(0)
	keyAddress, keyLength := lowerBytes(key)
	address, length := lowerBytes(data)
	signatureAddress, signatureLength := lowerBytes(signature)
	cryptoVerifySignature(algorithm, keyAddress, keyLength, address, length, signatureAddress, signatureLength, result())
	return verdict()
}

func verdict() (bool, string) {
	if isSet(0) {
		return false, settled(textAt(4))
	}
	return settled(isSet(4)), ""
}

func optional() (string, bool) {
	if !isSet(0) {
		return settled(""), false
	}
	return settled(textAt(4)), true
}

func lowerBytes(bytes []byte) (address, length uint32) {
	data := unsafe.SliceData(bytes)
	given = append(given, data)
	return uint32(uintptr(unsafe.Pointer(data))), uint32(len(bytes))
}
