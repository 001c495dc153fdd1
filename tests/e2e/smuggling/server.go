// Says which requests it sees, and which it could not read.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

var mutex sync.Mutex

func say(words ...any) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Println(words...)
}

// The library answers what it cannot read by itself.
type listener struct{ net.Listener }

type conn struct{ net.Conn }

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	return conn{accepted}, err
}

func (c conn) Write(text []byte) (int, error) {
	isFine := bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) || bytes.HasPrefix(text, []byte("HTTP/1.1 100 "))
	if !isFine {
		say("BAD", string(bytes.SplitN(text, []byte("\r\n"), 2)[0]))
	}
	return c.Conn.Write(text)
}

func main() {
	tcp, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	handler := func(response http.ResponseWriter, request *http.Request) {
		say("SEEN", request.Method, request.RequestURI)
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(response, "ok")
	}
	panic(http.Serve(listener{tcp}, http.HandlerFunc(handler)))
}
