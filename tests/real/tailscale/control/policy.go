package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

// authKey is what control thinks of one auth key.
type authKey struct {
	once       bool   // good for one new node
	refuse     string // the answer to whoever presents it; empty: accepted
	unapproved bool   // its nodes wait for an administrator
}

// tailnet is the in-memory server and the policy in front of it.
type tailnet struct {
	server *testcontrol.Server
	noise  key.MachinePrivate

	mu       sync.Mutex
	reject   int // HTTP status for every request from a node; 0: none
	keys     map[string]authKey
	admitted map[key.NodePublic]bool // nodes that need no key any more
	hosted   map[key.NodePublic]bool // nodes that host the Service, or did

	challenges string // where ACME challenges go; empty: nowhere
}

func newTailnet(s *testcontrol.Server) *tailnet {
	t := &tailnet{
		server:   s,
		noise:    key.NewMachine(),
		keys:     map[string]authKey{},
		admitted: map[key.NodePublic]bool{},
		hosted:   map[key.NodePublic]bool{},
	}
	s.OnSetDNS = t.setDNS
	return t
}

func (t *tailnet) rejecting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reject
}

// register decides on the key, then lets the in-memory server do the registration. That server
// always asks for a login; the request for it is taken out of the answer for those who are in.
func (t *tailnet) register(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req tailcfg.RegisterRequest
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))

	key, in, refusal := t.decide(&req)
	if refusal != "" {
		log.Printf("register %s: refused: %s", hostname(&req), refusal)
		json.NewEncoder(w).Encode(tailcfg.RegisterResponse{Error: refusal})
		return
	}
	if !in { // an interactive login: the server answers with its URL, or waits for the visit
		t.server.ServeHTTP(w, r)
		return
	}

	answer := httptest.NewRecorder()
	t.server.ServeHTTP(answer, r)
	var res tailcfg.RegisterResponse
	if err := json.Unmarshal(answer.Body.Bytes(), &res); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	res.AuthURL = ""
	if !res.NodeKeyExpired && t.admit(req.NodeKey) {
		t.settle(req.NodeKey, !key.unapproved)
	}
	if n := t.server.Node(req.NodeKey); n != nil {
		res.MachineAuthorized = n.MachineAuthorized
	}
	json.NewEncoder(w).Encode(res)
}

// decide says which key was used, whether the node is in (by key or because it was before), and
// with which text it is turned away. The texts are those of the real control server.
func (t *tailnet) decide(req *tailcfg.RegisterRequest) (k authKey, in bool, refusal string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.admitted[req.NodeKey] {
		return k, true, ""
	}
	if req.Auth == nil || req.Auth.AuthKey == "" {
		return k, false, ""
	}
	k, ok := t.keys[req.Auth.AuthKey]
	switch {
	case !ok:
		return k, false, fmt.Sprintf("invalid key: API key %s not valid", keyID(req.Auth.AuthKey))
	case k.refuse != "":
		return k, false, k.refuse
	case k.once:
		k.refuse = fmt.Sprintf("invalid key: API key %s has already been used", keyID(req.Auth.AuthKey))
		t.keys[req.Auth.AuthKey] = k
	}
	return k, true, ""
}

// admit reports whether the node is new.
func (t *tailnet) admit(k key.NodePublic) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.admitted[k]
	t.admitted[k] = true
	return !known
}

// keyID is the public part of tskey-auth-<id>-<secret>; the rest never reaches a log.
func keyID(k string) string {
	if parts := strings.Split(k, "-"); len(parts) > 2 {
		return parts[2]
	}
	return "unknown"
}

func hostname(req *tailcfg.RegisterRequest) string {
	if req.Hostinfo == nil {
		return "?"
	}
	return req.Hostinfo.Hostname
}
