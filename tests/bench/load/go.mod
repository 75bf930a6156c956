// The load for the proxy's benchmark and a backend for what nginx cannot serve. Standard library only.
module tailpod.invalid/bench/load

go 1.26.0
