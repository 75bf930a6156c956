# Pressing Tab in the three shells that people use at clusters: the names of a real cluster's Secrets where one belongs,
# flags where they do, and nothing that a cluster must be asked for elsewhere.
# personas: boot
# takes: 15
scripts=$(realpath "$HERE/../../../completions")
ln -s "$TAILPOD" "$CASE/bin/tailpod"
kubectl create namespace "$NS" >/dev/null
for name in web-one web-two store; do make_secret "$name" key=value; done
shell=(env -i PATH="$CASE/bin:/usr/bin:/bin" HOME="$CASE" KUBECONFIG="$KUBECONFIG")
cp "$KUBECONFIG" "$CASE/config"

# bash, as bash-completion calls it.
bash_offers() {
  # shellcheck disable=SC2016 # the inner shell's
  "${shell[@]}" bash --norc -c 'source "$1"; read -ra COMP_WORDS <<<"${2//=/ = }"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _tailpod tailpod "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; printf "%s\n" "${COMPREPLY[@]}"' bash "$scripts/tailpod.bash" "$1"
}
# fish, with the script where fish looks for it.
mkdir -p "$CASE/.config/fish/completions"
ln -s "$scripts/tailpod.fish" "$CASE/.config/fish/completions/tailpod.fish"
fish_offers() { "${shell[@]}" fish -c "complete -C $(printf %q "$1")" | cut -f 1; }
# zsh at a terminal: what the line has become.
mkdir "$CASE/zsh"
ln -s "$scripts/_tailpod" "$CASE/zsh/_tailpod"
zsh_makes() { "${shell[@]}" "$HERE/zsh-complete" "$CASE/zsh" "$1"; }

# offers SHELL LINE WORDS: a cluster that takes longer than 300 ms is not waited for, so a busy machine gets several tries.
offers() { [ "$("$1" "$2" | sort | xargs)" = "$3" ]; }
for names in bash_offers fish_offers; do
  for line in "secret -n $NS inspect web" "secret inspect --namespace $NS web" "secret --kubeconfig ~/config -n $NS inspect web" "secret -n $NS diff store web" \
    "secret -n $NS watch web" "secret -n $NS repair web" "authkey clear -n $NS --secret web" "doctor -n $NS --secret web"; do
    await 10 "$names: $line" offers "$names" "tailpod $line" "web-one web-two"
  done
  await 10 "$names: a namespace behind =" offers "$names" "tailpod secret inspect --namespace=$NS web" "web-one web-two"
  is "$names: a flag" "$($names "tailpod secret inspect --rev")" --reveal
  is "$names: an applet" "$($names "tailpod docto")" doctor
  is "$names: a namespace without Secrets" "$($names "tailpod secret -n $NS-none inspect web")" ""
done
for line in "secret -n $NS inspect web-t" "secret inspect --namespace $NS web-t" "secret inspect --namespace=$NS web-t" \
  "secret --kubeconfig ~/config -n $NS inspect web-t" "secret -n $NS diff store web-t" \
  "secret -n $NS watch web-t" "secret -n $NS repair web-t" "authkey clear -n $NS --secret web-t" "doctor -n $NS --secret web-t"; do
  await 20 "zsh: $line" offers zsh_makes "tailpod $line" "tailpod ${line}wo"
done
is "zsh: what two names share" "$(zsh_makes "tailpod secret -n $NS inspect w")" "tailpod secret -n $NS inspect web-"
is "zsh: a flag" "$(zsh_makes "tailpod secret inspect --rev")" "tailpod secret inspect --reveal="
is "zsh: an applet" "$(zsh_makes "tailpod docto")" "tailpod doctor "

# Without a cluster nothing is said, and nothing is waited for.
shell=(env -i PATH="$CASE/bin:/usr/bin:/bin" HOME="$CASE" KUBECONFIG=/nonexistent)
for names in bash_offers fish_offers; do
  is "$names without a cluster" "$($names "tailpod secret inspect web" 2>&1)" ""
done
is "zsh without a cluster" "$(zsh_makes "tailpod secret inspect web")" "tailpod secret inspect web"
