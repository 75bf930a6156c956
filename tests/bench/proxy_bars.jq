# The bars of the proxy, from the summary: what was measured, beside what, and whether the bar is held. Each bar says
# which way is good. `ours` has PROXY headers in, as k8s-proxy has; `ours-tls` has TLS on both sides, as nginx has: its
# stream is deciphered and enciphered once more on the cores that client and backend need for the same, so half of the
# direct rate is all that two cores can give, and nginx is the measure.
def of($measure; $subject): map(select(.measure == "proxy-" + $measure and .subject == $subject)) | (.[0].median // null);
def show: if . == null then "-" elif . >= 100 then round else (. * 100 | round / 100) end;
def bar($what; $value; $beside; $ratio; $sign; $limit):
  [$what, ($value | show), ($beside | show), ($ratio | show), "\($sign) \($limit)",
   (if $ratio == null then "NOT MEASURED"
    elif ($sign == ">=" and $ratio >= $limit) or ($sign == "<=" and $ratio <= $limit) then "held" else "MISSED" end)];
# ratio($measure; OURS; BESIDE)
def ratio($what; $measure; $ours; $beside; $sign; $limit):
  of($measure; $ours) as $a | of($measure; $beside) as $b
  | bar($what; $a; $b; (if $a != null and $b != null and $b != 0 then $a / $b else null end); $sign; $limit);
def plain($what; $measure; $ours; $beside; $factor; $sign; $limit):
  (of($measure; $ours) | if . == null then null else . * $factor end) as $a
  | (of($measure; $beside) | if . == null then null else . * $factor end) as $b
  | bar($what; $a; $b; $a; $sign; $limit);
def added($ours): (of("quiet-p50_us"; $ours)) as $a | (of("quiet-p50_us"; "direct")) as $b
  | bar("latency added, idle, us (\($ours))"; $a; $b; (if $a and $b then $a - $b else null end); "<="; 150);

[["PROXY", "OURS", "BESIDE", "RATIO OR VALUE", "BAR", ""]] + [
  ratio("1 KB answers/s, k8s-proxy"; "1k-per_second"; "ours"; "original"; ">="; 10),
  ratio("1 KB CPU us each, k8s-proxy"; "1k-cpu_us"; "ours"; "original"; "<="; 0.1),
  ratio("1 KB p99 us, k8s-proxy"; "1k-p99_us"; "ours"; "original"; "<="; 0.2),
  ratio("1 KB answers/s, nginx"; "1k-per_second"; "ours-tls"; "nginx"; ">="; 0.9),
  ratio("1 MB CPU us each, k8s-proxy"; "1m-cpu_us"; "ours"; "original"; "<="; 0.6),
  ratio("1 MB answers/s, k8s-proxy"; "1m-per_second"; "ours"; "original"; ">="; 1.3),
  ratio("1 MB answers/s, nginx"; "1m-per_second"; "ours-tls"; "nginx"; ">="; 1.3),
  added("ours"),
  added("ours-tls"),
  plain("1,000 watches KB each, k8s-proxy"; "watches-1000-kb_each"; "ours"; "original"; 1; "<="; 50),
  plain("1,000 watches KB each, TLS"; "watches-1000-kb_each"; "ours-tls"; "original"; 1; "<="; 50),
  plain("10,000 watches KB each"; "watches-10000-kb_each"; "ours"; "none"; 1; "<="; 55),
  plain("10,000 watches KB each, TLS"; "watches-10000-kb_each"; "ours-tls"; "none"; 1; "<="; 55),
  plain("10,000 watches, how many"; "watches-10000-count"; "ours"; "none"; 1; ">="; 9800),
  plain("10,000 watches, how many, TLS"; "watches-10000-count"; "ours-tls"; "none"; 1; ">="; 9800),
  plain("1,000 watches not delivered"; "watches-1000-lost"; "ours"; "original"; 1; "<="; 0),
  plain("1,000 watches not delivered, TLS"; "watches-1000-lost"; "ours-tls"; "original"; 1; "<="; 0),
  plain("10,000 watches not delivered"; "watches-10000-lost"; "ours"; "none"; 1; "<="; 0),
  plain("10,000 watches not delivered, TLS"; "watches-10000-lost"; "ours-tls"; "none"; 1; "<="; 0),
  ratio("upgraded stream MB/s, direct"; "stream-mb_per_second"; "ours"; "direct"; ">="; 0.6),
  ratio("upgraded stream MB/s, TLS, nginx"; "stream-mb_per_second"; "ours-tls"; "nginx"; ">="; 1.3),
  plain("200 streams, lost"; "echo-lost"; "ours"; "original"; 1; "<="; 0),
  plain("200 streams, lost, TLS"; "echo-lost"; "ours-tls"; "original"; 1; "<="; 0),
  plain("failed requests, 1 KB"; "1k-failed"; "ours"; "original"; 1; "<="; 0),
  plain("failed requests, 1 KB, TLS"; "1k-failed"; "ours-tls"; "original"; 1; "<="; 0),
  plain("failed requests, 1 MB"; "1m-failed"; "ours"; "original"; 1; "<="; 0),
  plain("failed requests, 1 MB, TLS"; "1m-failed"; "ours-tls"; "original"; 1; "<="; 0),
  plain("idle memory MB"; "idle-memory"; "ours"; "original"; 0.000001; "<="; 9),
  plain("idle memory MB, TLS"; "idle-memory"; "ours-tls"; "original"; 0.000001; "<="; 9)
] | .[] | map(tostring) | @tsv
