package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Where Pebble takes an order, and where it is asked for the certificate.
const (
	order    = "/order-plz"
	finalize = "/finalize-order/"
)

// trouble is what happens to requests instead of what should.
type trouble struct {
	path       string        // to paths that begin so
	name       string        // for this domain only, if not empty; known of orders and what follows from them
	status     int           // this is the answer; 0: none is made up
	kind       string        // of the ACME problem, without its prefix
	detail     string        // of the ACME problem
	retryAfter string        // the header, if not empty
	hang       bool          // nothing happens until the trouble is over
	slow       time.Duration // it takes so much longer
	times      int           // how often it happens; below 0: until it is over
}

// entry is one request that was about an order.
type entry struct {
	At       time.Time `json:"at"`
	Path     string    `json:"path"`
	Name     string    `json:"name"`
	Replaces string    `json:"replaces,omitempty"`
	State    string    `json:"state"` // what became of it: held, an answer's status, or lost
}

type shim struct {
	authority http.Handler

	mu      sync.Mutex
	trouble []*trouble
	healed  chan struct{}     // closed when the troubles are over
	orders  map[string]string // the domain of each order
	log     []*entry
}

// admin is the tests' side:
//
//	PUT    /trouble?path=P[&name=N][&times=N]...   requests for P: &hang, &slow=DURATION, or
//	                                               &status=N[&type=T][&detail=TEXT][&retry-after=TEXT]
//	DELETE /trouble                                it is over; whoever was kept waiting goes on
//	GET    /log                                    the orders and what followed, as a list
func (s *shim) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /trouble", func(w http.ResponseWriter, r *http.Request) {
		t := &trouble{path: r.FormValue("path"), name: r.FormValue("name"), kind: r.FormValue("type"),
			detail: r.FormValue("detail"), retryAfter: r.FormValue("retry-after"), hang: r.Form.Has("hang")}
		var err error
		if t.status, err = number(r.FormValue("status"), 0); err == nil {
			t.times, err = number(r.FormValue("times"), -1)
		}
		if slow := r.FormValue("slow"); err == nil && slow != "" {
			t.slow, err = time.ParseDuration(slow)
		}
		if err != nil || t.path == "" {
			http.Error(w, "want a path, and numbers where numbers belong", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trouble = append(s.trouble, t)
	})
	mux.HandleFunc("DELETE /trouble", func(http.ResponseWriter, *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trouble = nil
		close(s.healed)
		s.healed = make(chan struct{})
	})
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(append([]*entry{}, s.log...))
	})
	return mux
}

func number(text string, missing int) (int, error) {
	if text == "" {
		return missing, nil
	}
	return strconv.Atoi(text)
}

func (s *shim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	about := s.about(r, body)
	state := "lost"
	defer func() { s.became(about, state) }()

	t, healed := s.next(r.URL.Path, about.Name)
	if t != nil && t.hang {
		s.became(about, "held")
		select {
		case <-healed:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if t != nil && t.slow > 0 {
		s.became(about, "held")
		select {
		case <-time.After(t.slow):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if t != nil && t.status != 0 {
		state = strconv.Itoa(t.status)
		t.answer(w)
		return
	}
	answer := &recorder{ResponseWriter: w}
	s.authority.ServeHTTP(answer, r)
	state = strconv.Itoa(answer.status)
	if r.URL.Path == order && answer.status == http.StatusCreated {
		location := w.Header().Get("Location")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.orders[location[strings.LastIndex(location, "/")+1:]] = about.Name
	}
}

// about notes a request for an order, or for its certificate; of others there is nothing to say.
func (s *shim) about(r *http.Request, body []byte) *entry {
	e := &entry{At: time.Now(), Path: r.URL.Path}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := strings.CutPrefix(r.URL.Path, finalize); ok {
		e.Path, e.Name = finalize, s.orders[id]
	} else if r.URL.Path == order {
		e.Name, e.Replaces = wanted(body)
	} else {
		return e
	}
	s.log = append(s.log, e)
	return e
}

// wanted reads an order: which domain it is for, and which certificate the new one follows.
func wanted(body []byte) (name, replaces string) {
	var signed struct{ Payload string }
	var order struct {
		Identifiers []struct{ Value string }
		Replaces    string
	}
	if json.Unmarshal(body, &signed) != nil {
		return "", ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil || json.Unmarshal(payload, &order) != nil || len(order.Identifiers) == 0 {
		return "", ""
	}
	return order.Identifiers[0].Value, order.Replaces
}

func (s *shim) became(e *entry, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.State = state
}

// next is the first trouble that this request gets into.
func (s *shim) next(path, name string) (*trouble, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trouble {
		if strings.HasPrefix(path, t.path) && (t.name == "" || t.name == name) && t.times != 0 {
			t.times--
			return t, s.healed
		}
	}
	return nil, nil
}

func (t *trouble) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	if t.retryAfter != "" {
		w.Header().Set("Retry-After", t.retryAfter)
	}
	w.WriteHeader(t.status)
	json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:ietf:params:acme:error:" + t.kind, "detail": t.detail, "status": t.status,
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
