// requestinfo says what Kubernetes makes of requests: reads `METHOD TARGET` lines, reads each as Go's server reads a
// request head, hands it to the factory that kube-apiserver uses, and writes one JSON object a line. With -generate N it
// writes N such lines instead, the same for the same seed.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"
)

type info struct {
	IsResourceRequest bool     `json:"isResourceRequest"`
	Path              string   `json:"path"`
	Verb              string   `json:"verb"`
	APIPrefix         string   `json:"apiPrefix"`
	APIGroup          string   `json:"apiGroup"`
	APIVersion        string   `json:"apiVersion"`
	Namespace         string   `json:"namespace"`
	Resource          string   `json:"resource"`
	Subresource       string   `json:"subresource"`
	Name              string   `json:"name"`
	Parts             []string `json:"parts"`
	FieldSelector     string   `json:"fieldSelector"`
	LabelSelector     string   `json:"labelSelector"`
}

type answer struct {
	// What Go's server refuses before anybody looks at the path.
	Unreadable bool  `json:"unreadable"`
	Failed     bool  `json:"failed"`
	Info       *info `json:"requestInfo,omitempty"`
}

func main() {
	count := flag.Int("generate", 0, "write this many requests")
	seed := flag.Uint64("seed", 1, "for -generate")
	flag.Parse()
	// It logs every list option it cannot parse.
	klog.SetLogger(klog.Logger{})
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if *count > 0 {
		generate(out, *count, *seed)
		return
	}

	resolver := server.NewRequestInfoResolver(&server.Config{LegacyAPIGroupPrefixes: sets.NewString(server.DefaultLegacyAPIPrefix)})
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := encoder.Encode(read(resolver, lines.Bytes())); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func read(resolver *request.RequestInfoFactory, line []byte) answer {
	head := append(bytes.Clone(line), " HTTP/1.1\r\nHost: kubernetes\r\n\r\n"...)
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return answer{Unreadable: true}
	}
	got, err := resolver.NewRequestInfo(req)
	parts := got.Parts
	if parts == nil {
		parts = []string{}
	}
	return answer{Failed: err != nil, Info: &info{
		got.IsResourceRequest, got.Path, got.Verb, got.APIPrefix, got.APIGroup, got.APIVersion, got.Namespace, got.Resource,
		got.Subresource, got.Name, parts, got.FieldSelector, got.LabelSelector,
	}}
}
