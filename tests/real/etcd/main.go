// etcd is the unmodified server: its own command cannot be `go install`ed, its go.mod has replaces.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
