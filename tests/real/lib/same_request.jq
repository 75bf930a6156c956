# Where our reading of a request and Kubernetes' differ: input {ours, theirs, request}, output one line for each.
#
# We refuse what Kubernetes would serve for two reasons only: the path has a byte that other readers take for a separator
# or an end, or it does not begin with `/`. Everything else must be the same, and so must what follows from it.
def odd: (.theirs.requestInfo.path | test("[\\x00-\\x1f\\x7f\\\\]")) or (.request | test("^[^ ]+ ([^/]|[^?]*#)"));
def core: .theirs.requestInfo | .isResourceRequest and .apiGroup == "";
def kind: .theirs.requestInfo as $i |
  if (core | not) then "other"
  elif $i.resource == "pods" and ($i.subresource | IN("exec", "attach")) then $i.subresource
  else null end;

select(
  if .theirs.unreadable then .ours.requestInfo != null
  elif .ours.requestInfo == null then odd | not
  else .ours.requestInfo != .theirs.requestInfo
    or (.ours.error != null) != .theirs.failed
    or (kind as $kind | if $kind == null then .ours.kind | IN("exec", "attach") else .ours.kind != $kind and .theirs.failed == false end)
  end
) | "\(.request)\n  ours   \(.ours)\n  theirs \(.theirs)"
