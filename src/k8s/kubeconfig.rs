//! Kubeconfig files as the one context that is used, checked.
//!
//! kube reads the YAML; merging, relative paths and the rules of clientcmd (`tools/clientcmd/validation.go`) are ours.
//! Every problem of a context is reported at once.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{HeaderName, HeaderValue};
use kube::config::{AuthInfo, Cluster, ExecConfig, ExecInteractiveMode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::base::Base;
use super::egress::ProxyUrl;
use super::exec::{self, ClusterInfo, Config, Mode, Written};
use super::interactive_mode;
use super::pairfiles::Pem;
use super::token::Authorization;
use crate::secret::Secret;

/// The extension of a cluster that its plugins are handed.
const EXTENSION: &str = "client.authentication.k8s.io/exec";

/// One context.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) base: Base,
    pub(super) trust: Trust,
    pub(super) server_name: Option<String>,
    pub(super) proxy: Option<ProxyUrl>,
    pub(super) namespace: Option<String>,
    pub(super) user: User,
}

/// Whom the server's certificate has to come from.
#[derive(Debug)]
pub(super) enum Trust {
    /// The machine's authorities.
    System,
    /// Anybody.
    Anyone,
    /// A file.
    File(PathBuf),
    /// PEM in the kubeconfig itself.
    Data(Vec<u8>),
}

/// Who we are.
#[derive(Debug, Default)]
pub(super) struct User {
    /// A token or basic authentication.
    pub(super) fixed: Option<Authorization>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) pair: Option<(Pem, Pem)>,
    /// Only without any of the others.
    pub(super) exec: Option<Config>,
    /// `as` and its like, for our own requests.
    pub(super) impersonate: Vec<(HeaderName, HeaderValue)>,
}

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadKubeconfig {
    #[error("cannot read {path}: {why}")]
    Read { path: String, why: io::Error },
    #[error("{path} is not a kubeconfig: {why}")]
    Parse { path: String, why: String },
    #[error("no context is chosen: there is no current-context")]
    NoContext,
    #[error("context was not found for specified context: {0}")]
    Context(String),
    #[error("{0}")]
    Problems(Problems),
}

/// At least one.
#[derive(Debug)]
pub(super) struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            all => write!(f, "[{}]", all.join(", ")),
        }
    }
}

/// What clientcmd would have said about a context.
struct Checked<'a> {
    dir: &'a Path,
    problems: Vec<String>,
}

/// The context `context`, else the current one, of the files of `path`.
pub(super) fn load(path: &Path, context: Option<&str>) -> Result<Entry, BadKubeconfig> {
    let mut merged = Merged::default();
    for file in files(path) {
        merged.add(&file)?;
    }
    merged.entry(context)
}

/// One file, or the files of a list as `KUBECONFIG` has it; of a list, those that do not exist are passed over.
fn files(path: &Path) -> Vec<PathBuf> {
    let files: Vec<_> = std::env::split_paths(path).filter(|file| file.exists()).collect();
    if path.exists() || files.is_empty() { vec![path.to_owned()] } else { files }
}

/// Several files as one, each thing with the directory it is from. The first that has something wins.
#[derive(Default)]
struct Merged {
    current: Option<String>,
    contexts: Vec<(String, kube::config::Context)>,
    clusters: Vec<(String, Cluster, PathBuf)>,
    users: Vec<(String, AuthInfo, PathBuf)>,
}

impl Merged {
    fn add(&mut self, file: &Path) -> Result<(), BadKubeconfig> {
        let shown = || file.display().to_string();
        let text = std::fs::read_to_string(file).map(Zeroizing::new);
        let text = text.map_err(|why| BadKubeconfig::Read { path: shown(), why })?;
        let read = interactive_mode::read(&text);
        let read = read.map_err(|error| BadKubeconfig::Parse { path: shown(), why: without_quotes(&error) })?;
        let dir = std::path::absolute(file).map_err(|why| BadKubeconfig::Read { path: shown(), why })?;
        let dir = dir.parent().unwrap_or(Path::new("/")).to_owned();
        self.current = self.current.take().or(given(read.current_context));
        for named in read.contexts {
            if !self.contexts.iter().any(|(name, _)| *name == named.name) {
                self.contexts.push((named.name, named.context.unwrap_or_default()));
            }
        }
        for named in read.clusters {
            if !self.clusters.iter().any(|(name, ..)| *name == named.name) {
                self.clusters.push((named.name, named.cluster.unwrap_or_default(), dir.clone()));
            }
        }
        for named in read.auth_infos {
            if !self.users.iter().any(|(name, ..)| *name == named.name) {
                self.users.push((named.name, named.auth_info.unwrap_or_default(), dir.clone()));
            }
        }
        Ok(())
    }

    fn entry(self, context: Option<&str>) -> Result<Entry, BadKubeconfig> {
        let chosen = context.map(str::to_owned).or(self.current).ok_or(BadKubeconfig::NoContext)?;
        let found = self.contexts.into_iter().find(|(name, _)| *name == chosen);
        let (_, context) = found.ok_or_else(|| BadKubeconfig::Context(chosen.clone()))?;
        let cluster = self.clusters.into_iter().find(|(name, ..)| *name == context.cluster);
        let Some((cluster_name, cluster, cluster_dir)) = cluster else {
            let problem = format!("cluster {:?} was not found for context {chosen:?}", context.cluster);
            return Err(BadKubeconfig::Problems(Problems(vec![problem])));
        };
        // Like clientcmd: nobody is somebody.
        let user = self.users.into_iter().find(|(name, ..)| Some(name) == context.user.as_ref());
        let (user_name, user, user_dir) = user.unwrap_or_default();

        let mut checked = Checked { dir: &cluster_dir, problems: Vec::new() };
        let read = checked.cluster(cluster, &cluster_name);
        checked.dir = &user_dir;
        let user = checked.user(user, &user_name, read.as_ref().map(|(_, info)| info));
        match (read, checked.problems) {
            (Some((mut entry, _)), problems) if problems.is_empty() => {
                entry.namespace = given(context.namespace);
                entry.user = user;
                Ok(entry)
            }
            (_, problems) => Err(BadKubeconfig::Problems(Problems(problems))),
        }
    }
}

impl Checked<'_> {
    fn cluster(&mut self, cluster: Cluster, name: &str) -> Option<(Entry, ClusterInfo)> {
        let server = given(cluster.server).unwrap_or_default();
        let base = if server.is_empty() {
            self.problems.push(format!("no server found for cluster {name:?}"));
            None
        } else {
            let refused = |error| format!("server {server:?} of cluster {name:?} cannot be used: {error}");
            self.keep(Base::parse(&server).map_err(refused))
        };
        let insecure = cluster.insecure_skip_tls_verify.unwrap_or(false);
        let file = given(cluster.certificate_authority).map(|path| self.dir.join(path));
        let data = given(cluster.certificate_authority_data).and_then(|data| {
            self.keep(
                BASE64
                    .decode(data.trim())
                    .map_err(|_| format!("certificate-authority-data of cluster {name:?} is not base64")),
            )
        });
        if file.is_some() && data.is_some() {
            self.problems.push(format!(
                "certificate-authority-data and certificate-authority are both specified for {name}. \
                 certificate-authority-data will override."
            ));
        }
        if insecure && (file.is_some() || data.is_some()) {
            self.problems.push("specifying a root certificates file with the insecure flag is not allowed".to_owned());
        }
        let bundle = match (&data, &file) {
            (Some(data), _) => Some(data.clone()),
            (None, Some(path)) => self.keep(std::fs::read(path).map_err(|error| {
                format!("unable to read certificate-authority {} for {name} due to {error}", path.display())
            })),
            (None, None) => None,
        };
        let proxy_url = given(cluster.proxy_url);
        let proxy = proxy_url.as_deref().and_then(|url| {
            self.keep(
                ProxyUrl::parse(url).map_err(|error| format!("invalid 'proxy-url' for cluster {name:?}: {error}")),
            )
        });
        let config = cluster.extensions.unwrap_or_default().into_iter().find(|extension| extension.name == EXTENSION);
        let server_name = given(cluster.tls_server_name);
        let info = ClusterInfo {
            server,
            tls_server_name: server_name.clone().unwrap_or_default(),
            insecure_skip_tls_verify: insecure,
            certificate_authority_data: bundle.map(|pem| BASE64.encode(pem)).unwrap_or_default(),
            proxy_url: proxy_url.unwrap_or_default(),
            disable_compression: cluster.disable_compression.unwrap_or(false),
            config: config.map_or(Value::Null, |extension| extension.extension),
        };
        let trust = match (insecure, data, file) {
            (true, ..) => Trust::Anyone,
            (false, Some(data), _) => Trust::Data(data),
            (false, None, Some(file)) => Trust::File(file),
            (false, None, None) => Trust::System,
        };
        let entry = Entry { base: base?, trust, server_name, proxy, namespace: None, user: User::default() };
        Some((entry, info))
    }

    fn user(&mut self, user: AuthInfo, name: &str, cluster: Option<&ClusterInfo>) -> User {
        use secrecy::ExposeSecret as _;
        let token = user.token.filter(|token| !token.expose_secret().is_empty());
        let password = user.password.filter(|password| !password.expose_secret().is_empty());
        let (username, token_file) = (given(user.username), given(user.token_file).map(|path| self.dir.join(path)));
        let is_basic = username.is_some() || password.is_some();
        if is_basic && (token.is_some() || token_file.is_some()) {
            self.problems.push(format!(
                "more than one authentication method found for {name}; found [token basicAuth], only one is allowed"
            ));
        }
        let unusable =
            |what: &str| format!("the {what} of {name} cannot be used: it holds characters that no token has");
        let bearer = token.and_then(|token| {
            self.keep(Authorization::bearer(token.expose_secret().trim()).map_err(|_| unusable("token")))
        });
        let basic = is_basic.then(|| {
            let password = password.as_ref().map_or("", |password| password.expose_secret());
            Authorization::basic(username.as_deref().unwrap_or_default(), password).map_err(|_| unusable("password"))
        });
        let basic = basic.and_then(|basic| self.keep(basic));
        let chain = self.pem("client-cert", user.client_certificate_data, user.client_certificate, name);
        let key_data = user.client_key_data.map(|data| data.expose_secret().to_owned());
        let key = self.pem("client-key", key_data, user.client_key, name);
        if chain.is_some() && key.is_none() {
            self.problems.push(format!(
                "clientKeyData or clientKey must be specified for {name} to use the clientCert authentication method."
            ));
        }
        let pair = chain.zip(key);
        let is_static = bearer.is_some() || basic.is_some() || token_file.is_some() || pair.is_some();
        let has_provider = user.auth_provider.is_some();
        if has_provider && user.exec.is_some() {
            self.problems
                .push(format!("authProvider cannot be provided in combination with an exec plugin for {name}"));
        } else if has_provider && !is_static {
            self.problems
                .push(format!("the auth-provider of {name} is not supported: it was replaced by exec plugins"));
        }
        let exec = user.exec.and_then(|exec| self.exec(exec, name, cluster)).filter(|_| !is_static);
        let impersonate = impersonation(
            given(user.impersonate),
            given(user.impersonate_uid),
            user.impersonate_groups,
            user.impersonate_user_extra,
        );
        let impersonate = self.keep(impersonate.map_err(|why| format!("{why} for {name}"))).unwrap_or_default();
        User { fixed: bearer.or(basic), token_file, pair, exec, impersonate }
    }

    fn exec(&mut self, exec: ExecConfig, name: &str, cluster: Option<&ClusterInfo>) -> Option<Config> {
        let unknown =
            interactive_mode::unknown(&exec).map(|mode| format!("unknown interactiveMode: {mode:?} for {name}"));
        let written = Written {
            api_version: given(exec.api_version).unwrap_or_default(),
            command: given(exec.command).unwrap_or_default(),
            args: exec.args.unwrap_or_default(),
            env: exec.env.unwrap_or_default().into_iter().map(|entry| entry.into_iter().collect()).collect(),
            mode: exec.interactive_mode.map(|mode| match mode {
                ExecInteractiveMode::Never => Mode::Never,
                ExecInteractiveMode::IfAvailable => Mode::IfAvailable,
                ExecInteractiveMode::Always => Mode::Always,
            }),
            install_hint: exec.install_hint.unwrap_or_default(),
        };
        let mut problems = exec::problems(&written, name);
        if let Some(unknown) = unknown {
            // It is not missing.
            problems.retain(|problem| !problem.starts_with("interactiveMode "));
            problems.push(unknown);
        }
        if !problems.is_empty() {
            self.problems.extend(problems);
            return None;
        }
        let cluster = cluster.filter(|_| exec.provide_cluster_info).cloned();
        self.keep(Config::new(written, self.dir, cluster))
    }

    /// A PEM text that is given as base64 or as a file.
    fn pem(&mut self, what: &str, data: Option<String>, file: Option<String>, name: &str) -> Option<Pem> {
        let (data, file) = (given(data), given(file).map(|path| self.dir.join(path)));
        if data.is_some() && file.is_some() {
            self.problems
                .push(format!("{what}-data and {what} are both specified for {name}. {what}-data will override."));
        }
        let Some(data) = data.map(Zeroizing::new) else {
            let path = file?;
            let readable = std::fs::File::open(&path).map(drop);
            self.keep(
                readable.map_err(|error| format!("unable to read {what} {} for {name} due to {error}", path.display())),
            )?;
            return Some(Pem::File(path));
        };
        let decoded = BASE64.decode(data.trim()).map_err(|_| format!("{what}-data of {name} is not base64"));
        self.keep(decoded).map(|pem| Pem::Data(Secret::new(Zeroizing::new(pem))))
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }
}

/// Go knows no difference between empty and missing.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The headers of `as`, `as-uid`, `as-groups` and `as-user-extra`.
fn impersonation(
    user: Option<String>,
    uid: Option<String>,
    groups: Option<Vec<String>>,
    extra: Option<std::collections::HashMap<String, Vec<String>>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
    let (groups, extra) = (groups.unwrap_or_default(), extra.unwrap_or_default());
    let Some(user) = user else {
        let is_bare = uid.is_none() && groups.is_empty() && extra.is_empty();
        return if is_bare {
            Ok(Vec::new())
        } else {
            Err("requesting uid, groups or user-extra without impersonating a user")
        };
    };
    let mut named = vec![("impersonate-user".to_owned(), user)];
    named.extend(uid.map(|uid| ("impersonate-uid".to_owned(), uid)));
    named.extend(groups.into_iter().map(|group| ("impersonate-group".to_owned(), group)));
    for (key, values) in extra {
        named
            .extend(values.into_iter().map(|value| (format!("impersonate-extra-{}", key.to_ascii_lowercase()), value)));
    }
    let header =
        |(name, value): (String, String)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
    named.into_iter().map(header).collect::<Option<_>>().ok_or("impersonating somebody whose name no header can carry")
}

/// The first line of a parser's complaint: further ones show the text, which may hold a token.
fn without_quotes(error: &kube::config::KubeconfigError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().lines().next().unwrap_or_default().to_owned()
}
