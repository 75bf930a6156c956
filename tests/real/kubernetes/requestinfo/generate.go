package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Words that mean something at some place of a path, and some that only look so.
var words = []string{
	"api", "apis", "v1", "v1beta1", "apps", "batch", "rbac.authorization.k8s.io", "namespaces", "nodes", "pods", "services", "jobs",
	"exec", "attach", "proxy", "watch", "portforward", "ephemeralcontainers", "status", "finalize", "log", "run", "cri", "portForward",
	"healthz", "version", "openapi", "n", "p", "s:80", "https:s:443", "system:node", "a.b", "Exec", "PODS", "API", "é", "x y", "100%",
	"..", ".", "", "~", "a+b", "a;b", "a,b", "a=b", "$", "exec ", "pods\u2028", "{namespace}", "metrics", "\u017f", "NAMESPACES",
}

var shapes = [][]string{
	{"api", "v1", "namespaces", "*", "pods", "*", "exec"},
	{"api", "v1", "namespaces", "*", "pods", "*", "*"},
	{"api", "v1", "namespaces", "*", "*", "*", "*", "*"},
	{"api", "v1", "namespaces", "*", "*"},
	{"api", "v1", "nodes", "*", "proxy", "*", "*"},
	{"api", "v1", "*", "*"},
	{"api", "v1", "*"},
	{"api", "*", "*", "namespaces", "*", "*"},
	{"apis", "*", "v1", "namespaces", "*", "*", "*", "*"},
	{"apis", "*", "*", "*"},
	{"*", "*", "*", "*", "*"},
}

var queries = []string{
	"", "", "", "?", "?watch=1", "?watch", "?watch=", "?watch=0", "?watch=False", "?watch=true&watch=false", "?w%61tch=true", "?watch=fal%C5%BFe",
	"?limit=500", "?limit=x", "?limit=", "?limit=9223372036854775807", "?limit=9223372036854775808", "?limit=-1", "?limit=%2B1", "?limit=0x1",
	"?limit=1_0", "?timeoutSeconds=5s", "?timeoutSeconds=60&watch=1", "?fieldSelector=metadata.name=n", "?fieldSelector=metadata.name%3Dn&watch=1",
	"?fieldSelector=metadata.name%3D%3Dn", "?fieldSelector=metadata.name!=n", "?fieldSelector=a%3Db,metadata.name%3Dn", "?fieldSelector=metadata.name",
	"?fieldSelector=metadata.name%3Da%5C,b", "?fieldSelector=metadata.name%3Da%5Cb", "?fieldSelector=metadata.name%3D..", "?fieldSelector=metadata.name%3Da%2Fb",
	"?fieldSelector=metadata.name%3D", "?fieldSelector=,,", "?fieldSelector=metadata.name=z,metadata.name=a", "?fieldSelector=metadata.name=a%25",
	"?labelSelector=app%3Dx", "?labelSelector=a=b&fieldSelector=spec.nodeName=n", "?fieldSelector=a=b&fieldSelector=metadata.name=c",
	"?a=1;b=2", "?a=%zz&watch=1", "?watch=%zz", "?watch=1;", "?%", "?=&&=", "?command=sh&command=-c", "?resourceVersion=x&continue=%00",
	"?sendInitialEvents=maybe&allowWatchBookmarks=x", "?x=?y=/../z", "?limit=1&limit=x", "?limit=x&limit=1", "?pretty=#a",
}

var methods = []string{
	"GET", "GET", "GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Post", "PROXY", "WATCH", "X-Y", "propfind",
}

// generate writes requests like those that exist, written in every way that a client might.
func generate(out *bufio.Writer, count int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	for range count {
		var path strings.Builder
		shape := shapes[random.IntN(len(shapes))]
		if random.IntN(4) == 0 {
			shape = shape[:random.IntN(len(shape)+1)]
		}
		for _, word := range shape {
			switch random.IntN(60) {
			case 0:
				path.WriteString("//")
			case 1:
				path.WriteString("%2F")
			case 2:
				path.WriteString("/./")
			case 3:
				path.WriteString("%2f/")
			case 4:
				path.WriteString("/" + pick(words) + "/../")
			default:
				path.WriteByte('/')
			}
			if word == "*" || random.IntN(20) == 0 {
				word = pick(words)
			}
			write(&path, word, random)
		}
		switch random.IntN(12) {
		case 0:
			path.WriteByte('/')
		case 1:
			path.WriteString("//")
		case 2:
			path.WriteString("%2F")
		case 3:
			path.WriteString("/" + pick(words))
		case 4:
			// Bytes that no word has.
			fmt.Fprintf(&path, "%%%02X", random.IntN(256))
		}
		target := path.String()
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		fmt.Fprintf(out, "%s %s%s\n", pick(methods), target, pick(queries))
	}
}

// write writes one token, some or all of its bytes escaped, in both letter cases.
func write(path *strings.Builder, word string, random *rand.Rand) {
	chance := []int{0, 0, 0, 0, 0, 0, 1, 4}[random.IntN(8)]
	for i := range len(word) {
		b := word[i]
		must := b <= ' ' || b == '%' || b >= 0x7f || b == '/' || b == '#' || b == '?'
		switch {
		case !must && random.IntN(4) >= chance:
			path.WriteByte(b)
		case random.IntN(2) == 0:
			fmt.Fprintf(path, "%%%02x", b)
		default:
			fmt.Fprintf(path, "%%%02X", b)
		}
	}
}
