// pebble is Let's Encrypt's Pebble with one thing that its own command lacks and the authority that Tailscale uses does:
// its certificates are valid an hour before they are made. tailscaled looks at the clock before it waits for the order of
// a name that somebody else has asked for; a certificate younger than that look is none to it, and it orders another.
//
//	pebble CONFIG DNS
package main

import (
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/cmd"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// before is how long; profiles for less than a day get nothing of it.
const before = time.Hour

type config struct {
	Pebble struct {
		ListenAddress, ManagementListenAddress string
		Certificate, PrivateKey                string
		KeyAlgorithm                           string
		DomainBlocklist                        []string
		Profiles                               map[string]ca.Profile
		RetryAfter                             struct{ Authz, Order int }
	}
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: pebble CONFIG DNS")
	}
	var c config
	must(cmd.ReadConfigFile(os.Args[1], &c))
	p := c.Pebble

	logger := log.New(os.Stdout, "", log.Ltime|log.Lmicroseconds)
	store := db.NewMemoryStore()
	for _, domain := range p.DomainBlocklist {
		must(store.AddBlockedDomain(domain))
	}
	authority := ca.New(logger, store, "", p.KeyAlgorithm, 0, 1, p.Profiles)
	// The ports are for challenges that nobody here uses.
	validation := va.New(logger, 5002, 5001, false, os.Args[2], store)
	front := wfe.New(logger, store, validation, authority, []string{"lab"}, false, false, p.RetryAfter.Authz, p.RetryAfter.Order)

	go func() {
		log.Fatal(http.ListenAndServeTLS(p.ManagementListenAddress, p.Certificate, p.PrivateKey, front.ManagementHandler()))
	}()
	handler := front.Handler()
	log.Fatal(http.ListenAndServeTLS(p.ListenAddress, p.Certificate, p.PrivateKey,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if id, ok := strings.CutPrefix(r.URL.Path, "/finalize-order/"); ok {
				backdate(store, id, p.Profiles)
			}
			handler.ServeHTTP(w, r)
		})))
}

// backdate sets when the certificate of an order begins, as if who ordered it had asked for that.
func backdate(store *db.MemoryStore, id string, profiles map[string]ca.Profile) {
	order := store.GetOrderByID(id)
	if order == nil {
		return
	}
	order.Lock()
	defer order.Unlock()
	if profiles[order.Profile].ValidityPeriod >= uint64(24*time.Hour/time.Second) {
		order.NotBefore = time.Now().UTC().Add(-before).Format(time.RFC3339)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
