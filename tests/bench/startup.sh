# shellcheck shell=bash
# From exec to `Startup complete` on a node that control knows, interleaved so that whatever else
# the machine does hits all alike.
. "$(dirname "$1")/subjects.sh"

key=$(auth_key)
config node "AuthKey: \"$key\""

once() {
  local who=$1 mode=$2 name=$1-$2 fifo line now=
  become "$who"
  case $mode in
  always-auth) env=("${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-$name") ;;
  one-step) env=(TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config") ;;
  esac
  # `start` writes into the next log file: make that a pipe, to see the line as it is written.
  fifo=$CASE/$name.$((runs + 1)).log
  mkfifo "$fifo"
  start "$name" "${env[@]}" TS_STATE_DIR="$CASE/$name-state" EXEC_TIME_FILE="$CASE/exec-time"
  exec 3<"$fifo"
  rm "$fifo"
  while IFS= read -r -t 60 line <&3; do
    case $line in *"$ready_line") now=${EPOCHREALTIME/./}; break ;; esac
  done
  [ -n "$now" ] || fail "$name did not come up"
  cat <&3 >/dev/null &
  if [ "$3" != warm-up ]; then
    result startup "$who" "$mode" "$((now - $(cat "$CASE/exec-time") / 1000))e-3"
  fi
  stop "$name"
}

for mode in always-auth one-step; do
  for who in "${subjects[@]}"; do once "$who" "$mode" warm-up; done
  for ((round = 0; round < ROUNDS; round++)); do
    for who in "${subjects[@]}"; do once "$who" "$mode" "$round"; done
  done
done
