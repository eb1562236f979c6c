// Prints the partner's answer to each path on standard input: echo /fleets | go run partner.go DIR BASE_URL
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// credentials are those of one generation, with connections of their own.
type credentials struct {
	client *http.Client
	files  map[string][]byte
}

// open reads the credentials. directory is the one that DIR/current points to: all files of it are of one generation.
func open(directory string) (*credentials, error) {
	files := map[string][]byte{"tls.key": nil, "tls.crt": nil, "ca.crt": nil, "username": nil, "password": nil, "client_id": nil}
	var err error
	for name := range files {
		if files[name], err = os.ReadFile(filepath.Join(directory, name)); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(files["ca.crt"])
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		IdleConnTimeout: time.Minute,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // on the partner's host
	return &credentials{&http.Client{Transport: transport, CheckRedirect: stay, Timeout: time.Minute}, files}, nil
}

func (c *credentials) get(address string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	query := request.URL.Query()
	query.Set("client_id", string(c.files["client_id"]))
	request.URL.RawQuery = query.Encode()
	request.SetBasicAuth(string(c.files["username"]), string(c.files["password"]))
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

func main() {
	var at, path string
	var current *credentials
	for _, err := fmt.Scanln(&path); err == nil; _, err = fmt.Scanln(&path) {
		target, err := filepath.EvalSymlinks(filepath.Join(os.Args[1], "current"))
		if err != nil {
			log.Fatal(err)
		}
		if target != at { // a rotation has moved the link
			if current, err = open(target); err != nil {
				log.Fatal(err)
			}
			at = target
		}
		body, err := current.get(os.Args[2] + path)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(body))
	}
}
