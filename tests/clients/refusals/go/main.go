// Requests that are refused by their head, with Go's net/http. Arguments: HOST:PORT, method, path, the
// expected status, bytes of the body, how often, and the version of HTTP. Environment: FRESH, not empty for a
// connection of its own for each request.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

type zeros struct{}

func (zeros) Read(buffer []byte) (int, error) {
	clear(buffer)
	return len(buffer), nil
}

func number(text string) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	address, method, path := os.Args[1], os.Args[2], os.Args[3]
	expected, size, times := number(os.Args[4]), number(os.Args[5]), number(os.Args[6])
	var protocols http.Protocols
	protocols.SetHTTP1(os.Args[7] == "1.1")
	protocols.SetUnencryptedHTTP2(os.Args[7] == "2")
	client := http.Client{Transport: &http.Transport{Protocols: &protocols, DisableKeepAlives: os.Getenv("FRESH") != ""}}
	for range times {
		body := io.LimitReader(zeros{}, size)
		request, err := http.NewRequest(method, "http://"+address+path, io.NopCloser(body))
		check(err)
		request.ContentLength = size
		reply, err := client.Do(request)
		check(err)
		var status struct{ Message string }
		check(json.NewDecoder(reply.Body).Decode(&status))
		check(reply.Body.Close())
		if reply.StatusCode != int(expected) || status.Message == "" {
			check(fmt.Errorf("%s %q", reply.Status, status.Message))
		}
	}
}
