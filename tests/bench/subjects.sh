# shellcheck shell=bash
# The three that are compared, and how a measurement names them.
read -ra subjects <<<"${SUBJECTS:-original containerboot boot}"
become() {
  case $1 in
  original) subject=("$BIN/containerboot") ;;
  containerboot) subject=("$LAB/bin/containerboot") ;;
  boot) subject=("$TAILPOD" boot) ;;
  esac
}

# result MEASURE SUBJECT MODE VALUE
result() { echo "$*" >>"$RESULTS"; }

# A Pod as the documentation has it: state in a Secret, probes and metrics on.
pod_env() {
  env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET="$1" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-$1"
    POD_NAME="$1" POD_UID="uid-$1" TS_ENABLE_HEALTH_CHECK=true TS_ENABLE_METRICS=true
    TS_LOCAL_ADDR_PORT="127.0.0.1:$(lab_port)")
}
