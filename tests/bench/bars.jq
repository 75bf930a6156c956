# The bars of everything but the proxy, from the summary. Only what was measured is judged.
def judged($what; $measure; $mode; $subject; $field; $limit):
  .[] | select(.measure == $measure and .mode == $mode and .subject == $subject) | .[$field] // empty
  | [$what, "\(. * 1000 | round / 1000)", "<= \($limit)", (if . <= $limit then "held" else "MISSED" end)];
def ratio($measure; $mode; $subject; $limit): judged("\($measure) \($mode) \($subject), ratio"; $measure; $mode; $subject; "ratio"; $limit);
def median($measure; $mode; $subject; $limit): judged("\($measure) \($mode) \($subject)"; $measure; $mode; $subject; "median"; $limit);

[ (("small", "5000peers") as $mode | ("boot", "containerboot") as $who | ratio("memory"; $mode; $who; 0.4)),
  ratio("startup"; "always-auth"; "containerboot"; 0.45),
  ratio("startup"; "always-auth"; "boot"; 0.33),
  (.[] | select(.measure == "cpu" and .subject != "original") | . as $one | [.] | ratio("cpu"; $one.mode; $one.subject; 1 / 3)),
  (("static", "dynamic") as $which | median("size"; "-"; $which; 12000000)),
  median("l3-apply"; "1000-nftables"; "boot"; 150),
  (("nftables", "iptables-nft") as $backend | ratio("l3-apply"; "1000-\($backend)"; "boot"; 0.1)),
  # With iptables every change is a new table.
  median("l3-change"; "1000-nftables"; "boot"; 20),
  (("nftables", "iptables-nft") as $backend | ratio("l3-memory"; "1000-\($backend)"; "boot"; 0.4)),
  (.[] | select(.measure == "l3-cpu" and .subject == "boot") | . as $one | [.] | ratio("l3-cpu"; $one.mode; "boot"; 1 / 3))
] | select(. != []) | [["MEASURE", "VALUE", "BAR", ""]] + . | .[] | @tsv
