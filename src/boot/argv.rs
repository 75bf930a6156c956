//! The arguments of `tailscaled`, `tailscale up` and `tailscale set`. Pure.
//!
//! Order and spelling are contract (boot.md 3.1 to 3.3). Program names are not part of the lists. Follows
//! upstream's `cmd/containerboot/tailscaled.go`.

use std::fmt;
use std::path::PathBuf;

use crate::secret::{Secret, redact};
use crate::settings::login::LoginParts;
use crate::settings::{Credentials, Login, Mode, Routes, Settings, StateStore, Tun, secret_flag};

/// Arguments, some of which are secret. `Debug` shows `[redacted]` for those.
#[derive(Clone, PartialEq, Eq)]
pub struct Argv(Vec<Arg>);

#[derive(Clone, PartialEq, Eq)]
enum Arg {
    Plain(String),
    Secret {
        /// `--authkey=`, or empty when the flag is an argument of its own.
        flag: String,
        value: Secret<String>,
    },
}

impl Argv {
    /// The arguments with secrets in the clear: `containerboot`'s contract, for the child's argv only.
    pub fn expose(&self) -> Vec<String> {
        self.render(|value| value.expose().clone())
    }

    /// The arguments to be shown: `[redacted]` for secrets, and for what looks like one in any other.
    pub fn redacted(&self) -> Vec<String> {
        self.render(Secret::to_string).iter().map(|arg| redact(arg)).collect()
    }

    /// The arguments with secrets moved to files (boot.md E.2): `place` writes a value and returns the path.
    ///
    /// `file:…` values are paths already, and `arn:…` values are names that the CLI does not look up when they come
    /// from a file; both stay.
    ///
    /// # Errors
    /// The first error of `place`; no arguments exist then.
    pub fn with_files<E>(
        &self,
        mut place: impl FnMut(&Secret<String>) -> Result<PathBuf, E>,
    ) -> Result<Vec<String>, E> {
        let arg = |arg: &Arg| match arg {
            Arg::Plain(text) => Ok(text.clone()),
            Arg::Secret { flag, value } if is_reference(value) => Ok(format!("{flag}{}", value.expose())),
            Arg::Secret { flag, value } => place(value).map(|path| format!("{flag}file:{}", path.display())),
        };
        self.0.iter().map(arg).collect()
    }

    /// Whether [`Self::with_files`] will ask for a file.
    pub fn needs_files(&self) -> bool {
        self.0.iter().any(|arg| matches!(arg, Arg::Secret { value, .. } if !is_reference(value)))
    }

    /// The arguments that hold no secret, for a node that needs none.
    #[must_use]
    pub fn without_secrets(mut self) -> Vec<String> {
        self.0.retain(|arg| matches!(arg, Arg::Plain(_)));
        self.expose()
    }

    fn render(&self, show: impl Fn(&Secret<String>) -> String) -> Vec<String> {
        let arg = |arg: &Arg| match arg {
            Arg::Plain(text) => text.clone(),
            Arg::Secret { flag, value } => format!("{flag}{}", show(value)),
        };
        self.0.iter().map(arg).collect()
    }

    fn push(&mut self, text: impl Into<String>) {
        self.0.push(Arg::Plain(text.into()));
    }

    fn push_secret(&mut self, flag: &str, value: &Secret<String>) {
        self.0.push(Arg::Secret { flag: format!("{flag}="), value: value.clone() });
    }

    /// Words of an operator, in which secrets are recognised by their flag.
    fn push_words(&mut self, words: &[String]) {
        let mut value_is_secret = false;
        for word in words {
            if std::mem::take(&mut value_is_secret) {
                self.0.push(Arg::Secret { flag: String::new(), value: Secret::new(word.clone()) });
                continue;
            }
            match secret_flag(word) {
                Some((flag, Some(value))) => self.push_secret(flag, &Secret::new(value.to_owned())),
                Some((_, None)) => {
                    value_is_secret = true;
                    self.push(word);
                }
                None => self.push(word),
            }
        }
    }
}

impl fmt::Debug for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.redacted()).finish()
    }
}

/// Whether a value of a secret flag says where the secret is, not what it is. The CLI (1.102.5, `resolveValue`) looks an
/// ARN up only when it is the flag's own value, not when it reads it from a file; so the real part overrules the
/// specification, and the parameter's name, which is no secret, stays on argv.
fn is_reference(value: &Secret<String>) -> bool {
    ["file:", "arn:aws:ssm:"].iter().any(|prefix| value.expose().starts_with(prefix))
}

/// `tailscaled`'s arguments (boot.md 3.1).
pub fn tailscaled(settings: &Settings) -> Vec<String> {
    let daemon = &settings.daemon;
    let mut args = vec![format!("--socket={}", daemon.socket.display())];
    match &daemon.state {
        StateStore::Secret { name, dir } => {
            args.extend([format!("--state=kube:{name}"), format!("--statedir={}", dir.display())]);
        }
        StateStore::Dir(dir) => args.push(format!("--statedir={}", dir.display())),
        StateStore::Memory => args.extend(["--state=mem:".to_owned(), "--statedir=/tmp".to_owned()]),
    }
    if daemon.tun == Tun::Userspace {
        args.push("--tun=userspace-networking".to_owned());
    }
    args.extend(daemon.socks5_server.iter().map(|addr| format!("--socks5-server={addr}")));
    args.extend(daemon.outbound_http_proxy_listen.iter().map(|addr| format!("--outbound-http-proxy-listen={addr}")));
    if let Mode::OneStep(file) = &settings.mode {
        args.push(format!("--config={}", file.path.display()));
    }
    // The operator may have given the flag itself.
    let debug = daemon.debug_addr.iter().filter(|addr| !daemon.extra_args_text.contains(addr.as_str()));
    args.extend(debug.map(|addr| format!("--debug={addr}")));
    args.extend(daemon.extra_args.iter().cloned());
    args
}

/// `tailscale`'s arguments for logging in (boot.md 3.2). `key` is a key from elsewhere, such as the state Secret;
/// without it the key of the settings is used, if they have one.
pub fn up(settings: &Settings, key: Option<&Secret<String>>) -> Argv {
    let mut args = Argv(Vec::new());
    args.push(format!("--socket={}", settings.daemon.socket.display()));
    args.push("up");
    args.push(accept_dns(settings));
    let login = LoginParts::from(&settings.login);
    if let Some(key) = key.or(login.auth_key.as_ref()) {
        args.push_secret("--authkey", key);
    }
    if let Some(id) = &login.client_id {
        args.push(format!("--client-id={id}"));
    }
    if let Some(secret) = &login.client_secret {
        args.push_secret("--client-secret", secret);
    }
    if let Some(token) = &login.id_token {
        args.push_secret("--id-token", token);
    }
    if let Some(audience) = &login.audience {
        args.push(format!("--audience={audience}"));
    }
    args.0.extend(routes_and_hostname(settings).into_iter().map(Arg::Plain));
    args.push_words(&settings.node.extra_args);
    args
}

/// `tailscale`'s arguments for changing settings of a node that is logged in (boot.md 3.3).
pub fn set(settings: &Settings) -> Vec<String> {
    let mut args =
        vec![format!("--socket={}", settings.daemon.socket.display()), "set".to_owned(), accept_dns(settings)];
    args.extend(routes_and_hostname(settings));
    args
}

fn accept_dns(settings: &Settings) -> String {
    format!("--accept-dns={}", settings.node.accept_dns)
}

fn routes_and_hostname(settings: &Settings) -> Vec<String> {
    let mut args = Vec::new();
    if let Routes::Set(routes) = &settings.node.routes {
        args.push(format!("--advertise-routes={routes}"));
    }
    args.extend(settings.node.hostname.iter().map(|name| format!("--hostname={name}")));
    args
}

impl From<&Login> for LoginParts {
    fn from(login: &Login) -> Self {
        let mut parts = Self::default();
        match login.clone() {
            Login::Interactive => {}
            Login::AuthKey(key) => parts.auth_key = Some(key),
            Login::Credentials(Credentials::Ambient { id }) => parts.client_id = Some(id),
            Login::Credentials(Credentials::OAuth { id, secret }) => {
                parts.client_id = id;
                parts.client_secret = Some(secret);
            }
            Login::Credentials(Credentials::IdToken { id, token }) => {
                parts.client_id = Some(id);
                parts.id_token = Some(token);
            }
            Login::Credentials(Credentials::Audience { id, audience }) => {
                parts.client_id = Some(id);
                parts.audience = Some(audience);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::{self, Persona};

    const S: &str = "/tmp/tailscaled.sock";

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let vars: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        settings::read(&vars, Persona::Containerboot).unwrap_or_else(|problems| panic!("{pairs:?}: {problems}"))
    }

    /// The commands of the table in boot.md 3.3, `S` standing for the socket.
    fn commands(pairs: &[(&str, &str)]) -> [String; 3] {
        let settings = settings(pairs);
        [tailscaled(&settings), up(&settings, None).expose(), set(&settings)].map(|args| args.join(" ").replace(S, "S"))
    }

    #[test]
    fn the_daemons_arguments_are_contract() {
        const USER: &str = "--tun=userspace-networking";
        let kube = ("KUBERNETES_SERVICE_HOST", "h");
        for (pairs, expected) in [
            (&[][..], format!("--socket=S --state=mem: --statedir=/tmp {USER}")),
            (&[("TS_STATE_DIR", "/var/lib/ts")], format!("--socket=S --statedir=/var/lib/ts {USER}")),
            (&[("TS_USERSPACE", "false")], "--socket=S --state=mem: --statedir=/tmp".to_owned()),
            (&[kube], format!("--socket=S --state=kube:tailscale --statedir=/tmp {USER}")),
            (
                &[kube, ("TS_KUBE_SECRET", "x"), ("TS_STATE_DIR", "/d")],
                format!("--socket=S --state=kube:x --statedir=/d {USER}"),
            ),
            (&[kube, ("TS_KUBE_SECRET", ""), ("TS_STATE_DIR", "/d")], format!("--socket=S --statedir=/d {USER}")),
            (
                &[
                    ("TS_SOCKS5_SERVER", "localhost:1080"),
                    ("TS_OUTBOUND_HTTP_PROXY_LISTEN", "localhost:8080"),
                    ("TS_TAILSCALED_EXTRA_ARGS", "--experiments=w  -v"),
                    ("TS_DEBUG_ADDR_PORT", "127.0.0.1:9001"),
                ],
                format!(
                    "--socket=S --state=mem: --statedir=/tmp {USER} --socks5-server=localhost:1080 \
                     --outbound-http-proxy-listen=localhost:8080 --debug=127.0.0.1:9001 --experiments=w -v"
                ),
            ),
            (
                &[("TS_TAILSCALED_EXTRA_ARGS", "--debug=127.0.0.1:9001"), ("TS_DEBUG_ADDR_PORT", "127.0.0.1:9001")],
                format!("--socket=S --state=mem: --statedir=/tmp {USER} --debug=127.0.0.1:9001"),
            ),
        ] {
            assert_eq!(commands(pairs)[0], expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_config_file_stands_between_proxies_and_debug() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("cap-95.hujson"), r#"{"version":"alpha0"}"#).expect("a file");
        let text = dir.path().display().to_string();
        let pairs = [
            ("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", text.as_str()),
            ("TS_SOCKS5_SERVER", ":1"),
            ("TS_DEBUG_ADDR_PORT", "127.0.0.1:2"),
        ];
        assert!(commands(&pairs)[0].ends_with(&format!(
            "--tun=userspace-networking --socks5-server=:1 --config={text}/cap-95.hujson --debug=127.0.0.1:2"
        )));
    }

    #[test]
    fn the_clis_arguments_are_contract() {
        for (pairs, up, set) in [
            (&[][..], "--accept-dns=false", "--accept-dns=false"),
            (&[("TS_AUTHKEY", "k")], "--accept-dns=false --authkey=k", "--accept-dns=false"),
            (
                &[("TS_AUTHKEY", "k"), ("TS_ROUTES", "")],
                "--accept-dns=false --authkey=k --advertise-routes=",
                "--accept-dns=false --advertise-routes=",
            ),
            (
                &[("TS_ROUTES", "1.2.3.0/24,::/64"), ("TS_HOSTNAME", "h"), ("TS_EXTRA_ARGS", "--widget=a  --ssh")],
                "--accept-dns=false --advertise-routes=1.2.3.0/24,::/64 --hostname=h --widget=a --ssh",
                "--accept-dns=false --advertise-routes=1.2.3.0/24,::/64 --hostname=h",
            ),
            (
                &[("TS_EXTRA_ARGS", "--accept-dns --accept-routes")],
                "--accept-dns=true --accept-routes",
                "--accept-dns=true",
            ),
            (&[("TS_EXTRA_ARGS", "--accept-dns=maybe")], "--accept-dns=false --accept-dns=maybe", "--accept-dns=false"),
            (
                &[("TS_CLIENT_ID", "i"), ("TS_CLIENT_SECRET", "s")],
                "--accept-dns=false --client-id=i --client-secret=s",
                "--accept-dns=false",
            ),
            (
                &[("TS_CLIENT_ID", "i"), ("TS_ID_TOKEN", "t")],
                "--accept-dns=false --client-id=i --id-token=t",
                "--accept-dns=false",
            ),
            (
                &[("TS_CLIENT_ID", "i"), ("TS_AUDIENCE", "a"), ("TS_ROUTES", "10.0.0.0/8")],
                "--accept-dns=false --client-id=i --audience=a --advertise-routes=10.0.0.0/8",
                "--accept-dns=false --advertise-routes=10.0.0.0/8",
            ),
        ] {
            let [_, got_up, got_set] = commands(pairs);
            assert_eq!(got_up, format!("--socket=S up {up}"), "{pairs:?}");
            assert_eq!(got_set, format!("--socket=S set {set}"), "{pairs:?}");
        }
        let key = Secret::new("from-the-secret".to_owned());
        let args = up_of(&[], Some(&key)).expose();
        assert_eq!(args.last().map(String::as_str), Some("--authkey=from-the-secret"));
    }

    fn up_of(pairs: &[(&str, &str)], key: Option<&Secret<String>>) -> Argv {
        up(&settings(pairs), key)
    }

    #[test]
    fn secrets_are_redacted_wherever_they_stand() {
        let args =
            up_of(&[("TS_AUTHKEY", "s3cret"), ("TS_EXTRA_ARGS", "--id-token s3cret -auth-key=s3cret --ssh")], None);
        assert_eq!(
            args.redacted()[2..].join(" "),
            "--accept-dns=false --authkey=[redacted] --id-token [redacted] -auth-key=[redacted] --ssh"
        );
        assert!(!format!("{args:?}").contains("s3cret"));
        assert_eq!(args.expose().join(" ").matches("s3cret").count(), 3);
    }

    #[test]
    fn secrets_move_to_files_and_references_stay() {
        let pairs = [("TS_CLIENT_ID", "i"), ("TS_CLIENT_SECRET", "s3cret"), ("TS_EXTRA_ARGS", "--id-token s4cret")];
        let mut written = Vec::new();
        let args = up_of(&pairs, None);
        let place = |value: &Secret<String>| {
            written.push(value.expose().clone());
            Ok::<_, ()>(PathBuf::from(format!("/dev/shm/{}", written.len())))
        };
        assert_eq!(
            args.with_files(place).map(|args| args[2..].join(" ")).as_deref(),
            Ok("--accept-dns=false --client-id=i --client-secret=file:/dev/shm/1 --id-token file:/dev/shm/2")
        );
        assert_eq!(written, ["s3cret", "s4cret"]);
        assert_eq!(args.with_files(|_| Err::<PathBuf, _>("no memory")), Err("no memory"));

        for reference in ["file:/run/key", "arn:aws:ssm:us-east-1:123456789012:parameter/key"] {
            let args = up_of(&[("TS_AUTHKEY", reference)], None);
            assert!(!args.needs_files());
            let args = args.with_files(|_| Err::<PathBuf, _>(())).expect("nothing to write");
            assert_eq!(args.last(), Some(&format!("--authkey={reference}")));
        }
    }
}
