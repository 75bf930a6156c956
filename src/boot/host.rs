//! Host preparation (P1): the TUN device and the IP forwarding sysctls.
//!
//! Happens only with the kernel's network stack. What is wanted is decided in [`Forwarding::wanted`] (pure); nothing
//! is written that is already as it should be. Follows upstream's `cmd/containerboot/forwarding.go` and
//! `ensureTunFile`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::localapi::LocalApi;
use crate::settings::{Egress, Forward, Ingress, Routes, Settings, Tun};

/// Major and minor number of the TUN device, from the kernel's list of devices.
const TUN_DEVICE: (u64, u64) = (10, 200);

/// Why the host could not be prepared. [`lines`](Self::lines) has the contract's texts.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// `/dev/net/tun` is missing and could not be made.
    #[error("unable to create tuntap device file")]
    Tun {
        /// Why.
        source: io::Error,
    },
    /// IP forwarding is needed and could not be switched on.
    #[error("failed to enable IP forwarding")]
    Forwarding {
        /// Why.
        source: ForwardingError,
        /// Whether the remedy is one of Kubernetes.
        in_kubernetes: bool,
    },
}

/// Why IP forwarding could not be switched on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// An address or route is none; nothing was touched.
    #[error("{what}: {reason}")]
    Invalid {
        /// `invalid subnet route` and the like.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A sysctl file.
    #[error("{verb} {path:?}", path = .path.display().to_string())]
    File {
        /// `reading` or `enabling`
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HostError {
    /// The lines to log, as upstream words them; the last one is the fatal line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Tun { source } => vec![format!("{self}: {source}")],
            Self::Forwarding { source, in_kubernetes } => {
                let cause = match source {
                    ForwardingError::Invalid { .. } => source.to_string(),
                    ForwardingError::File { source: io, .. } => format!("{source}: {io}"),
                };
                let hint = if *in_kubernetes {
                    "you can either set the sysctls as a privileged initContainer, or run the tailscale container with \
                     privileged=true."
                } else {
                    "you can fix this by running the container with privileged=true, or the equivalent in your \
                     container runtime that permits access to sysctls."
                };
                vec![
                    format!("Failed to enable IP forwarding: {cause}"),
                    "To run tailscale as a proxy or router container, IP forwarding must be enabled.".to_owned(),
                    hint.to_owned(),
                ]
            }
        }
    }
}

/// Which address families must be forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// IPv4
    pub v4: bool,
    /// IPv6
    pub v6: bool,
}

impl Forwarding {
    /// The families of all destinations and routes that are known at the start (boot.md 1.5). Pure.
    ///
    /// # Errors
    /// The first route that is none.
    pub fn wanted(forward: &Forward, routes: &Routes) -> Result<Self, ForwardingError> {
        let mut wanted = Self::default();
        if let Some(Ingress::Ip(ip)) = forward.ingress {
            wanted.add(ip.is_ipv4());
        }
        match forward.egress {
            Some(Egress::Ip(ip)) => wanted.add(ip.is_ipv4()),
            // As upstream; what the name turns out to be is looked at when it is known.
            Some(Egress::Fqdn(_)) => wanted.v4 = true,
            None => {}
        }
        let routes = routes.prefixes().map_err(|(text, error)| ForwardingError::Invalid {
            what: "invalid subnet route",
            reason: format!("{text:?}: {error}"),
        })?;
        for route in routes {
            wanted.add(route.addr().is_ipv4());
        }
        Ok(wanted)
    }

    /// The families of these addresses. Pure.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut wanted = Self::default();
        addresses.into_iter().for_each(|ip| wanted.add(ip.is_ipv4()));
        wanted
    }

    fn add(&mut self, is_v4: bool) {
        if is_v4 {
            self.v4 = true;
        } else {
            self.v6 = true;
        }
    }

    /// The sysctl files that must contain `1`.
    pub fn sysctls(self, root: &Path) -> Vec<PathBuf> {
        let files = [(self.v4, "proc/sys/net/ipv4/ip_forward"), (self.v6, "proc/sys/net/ipv6/conf/all/forwarding")];
        files.into_iter().filter(|(wanted, _)| *wanted).map(|(_, file)| root.join(file)).collect()
    }

    /// Switches forwarding on where it is off.
    ///
    /// # Errors
    /// The first file that cannot be read, or cannot be written and is not `1` yet.
    pub fn enable(self, root: &Path) -> Result<(), ForwardingError> {
        for path in self.sysctls(root) {
            let failed = |verb, source| ForwardingError::File { verb, path: path.clone(), source };
            // An init container may have set it where we may not write.
            let content = std::fs::read(&path).map_err(|error| failed("reading", error))?;
            if content.trim_ascii() != b"1" {
                std::fs::write(&path, "1").map_err(|error| failed("enabling", error))?;
            }
        }
        Ok(())
    }
}

/// Prepares the host for what the settings ask for; does nothing in userspace mode.
///
/// # Errors
/// See [`HostError`].
pub fn prepare(settings: &Settings) -> Result<(), HostError> {
    if settings.daemon.tun == Tun::Userspace {
        return Ok(());
    }
    ensure_tun(&settings.root).map_err(|source| HostError::Tun { source })?;
    Forwarding::wanted(&settings.forward, &settings.node.routes)
        .and_then(|wanted| wanted.enable(&settings.root))
        .map_err(|source| HostError::Forwarding { source, in_kubernetes: settings.kube.in_kubernetes })
}

/// Makes `<root>/dev/net/tun` if it is missing; an existing file of any type is accepted.
///
/// # Errors
/// Of the directory or of `mknod`.
pub fn ensure_tun(root: &Path) -> io::Result<()> {
    let dir = root.join("dev/net");
    if is_missing(&dir) {
        std::fs::create_dir_all(&dir)?;
    }
    let tun = tun_path(root);
    if is_missing(&tun) {
        let device = makedev(TUN_DEVICE.0, TUN_DEVICE.1);
        mknod(&tun, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, device)?;
    }
    Ok(())
}

/// `<root>/dev/net/tun`
pub fn tun_path(root: &Path) -> PathBuf {
    root.join("dev/net/tun")
}

/// Whether the file is certainly not there; any other trouble shows itself when it is used.
fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// UDP GRO forwarding (P5), which the daemon sets up itself; it is faster, and never needed.
pub(super) async fn tune_gro(api: &LocalApi) {
    let problem = match api.set_udp_gro_forwarding().await {
        Ok(None) => return,
        Ok(Some(warning)) => warning,
        Err(error) => error.to_string(),
    };
    tracing::warn!("[unexpected] error enabling UDP GRO forwarding: {problem}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;
    use crate::settings::{self, Persona};

    /// A root with a TUN device and both sysctls off.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (file, content) in [
            ("dev/net/tun", ""),
            ("proc/sys/net/ipv4/ip_forward", "0\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        root
    }

    fn settings_for(root: &Path, pairs: &[(&str, &str)]) -> Settings {
        let text = root.display().to_string();
        let mut vars: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        vars.insert("TS_TEST_ONLY_ROOT", &text);
        settings::read(&vars, Persona::Containerboot).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn sysctls(root: &Path) -> [String; 2] {
        ["proc/sys/net/ipv4/ip_forward", "proc/sys/net/ipv6/conf/all/forwarding"]
            .map(|file| fs::read_to_string(root.join(file)).expect("a sysctl").trim().to_owned())
    }

    #[test]
    fn scenario_7_routes_decide_the_families() {
        for (routes, expected) in [
            ("1.2.3.0/24,10.20.30.0/24", ["1", "0"]),
            ("::/64,1::/64", ["0", "1"]),
            ("::/64,1.2.3.0/24", ["1", "1"]),
            ("", ["0", "0"]),
        ] {
            let root = root();
            prepare(&settings_for(root.path(), &[("TS_USERSPACE", "false"), ("TS_ROUTES", routes)])).expect(routes);
            assert_eq!(sysctls(root.path()), expected, "{routes}");
        }
        let root = root();
        prepare(&settings_for(root.path(), &[("TS_ROUTES", "1.2.3.0/24")])).expect("scenario 5");
        assert_eq!(sysctls(root.path()), ["0", "0"], "userspace touches nothing");
    }

    #[test]
    fn scenario_8_a_bad_route_is_told_here() {
        let root = root();
        let settings = settings_for(root.path(), &[("TS_USERSPACE", "false"), ("TS_ROUTES", "10.0.0.0/8,nonsense")]);
        let lines = prepare(&settings).expect_err("a bad route").lines();
        assert!(
            lines[0].starts_with("Failed to enable IP forwarding: invalid subnet route: \"nonsense\""),
            "{lines:?}"
        );
        assert_eq!(lines[1], "To run tailscale as a proxy or router container, IP forwarding must be enabled.");
        assert!(lines[2].starts_with("you can fix this by running the container with privileged=true"), "{lines:?}");
        assert_eq!(sysctls(root.path()), ["0", "0"], "nothing is touched before all is understood");
    }

    #[test]
    fn every_destination_counts() {
        for (pairs, expected) in [
            (&[][..], ["0", "0"]),
            (&[("TS_DEST_IP", "1.2.3.4")], ["1", "0"]),
            (&[("TS_DEST_IP", "fd00::1")], ["0", "1"]),
            (&[("TS_TAILNET_TARGET_IP", "fd7a::1"), ("TS_ROUTES", "10.0.0.0/8")], ["1", "1"]),
            (&[("TS_TAILNET_TARGET_FQDN", "a.ts.net")], ["1", "0"]),
            (&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "h")], ["0", "0"]),
        ] {
            let root = root();
            let pairs = [&[("TS_USERSPACE", "false")], pairs].concat();
            prepare(&settings_for(root.path(), &pairs)).expect("a writable root");
            assert_eq!(sysctls(root.path()), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_on_is_not_written_and_what_is_missing_is_an_error() {
        let root = root();
        let v4 = Forwarding { v4: true, v6: false };
        let path = root.path().join("proc/sys/net/ipv4/ip_forward");
        fs::write(&path, " 1 \n").expect("a file");
        v4.enable(root.path()).expect("it is on");
        assert_eq!(fs::read_to_string(&path).expect("a sysctl"), " 1 \n");
        fs::remove_file(&path).expect("a file");
        let error = HostError::Forwarding { source: v4.enable(root.path()).expect_err("no file"), in_kubernetes: true };
        let lines = error.lines();
        let text = format!("Failed to enable IP forwarding: reading \"{}\": No such file", path.display());
        assert!(lines[0].starts_with(&text), "{lines:?}");
        assert!(lines[2].starts_with("you can either set the sysctls as a privileged initContainer"), "{lines:?}");
    }

    #[test]
    fn the_device_is_made_when_missing() {
        let root = tempfile::tempdir().expect("a directory");
        match ensure_tun(root.path()) {
            Ok(()) => {
                let meta = fs::metadata(tun_path(root.path())).expect("the device");
                assert!(meta.file_type().is_char_device());
                assert_eq!(std::os::unix::fs::MetadataExt::rdev(&meta), makedev(10, 200));
            }
            // Without CAP_MKNOD the attempt itself is what can be seen.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        let error = HostError::Tun { source: io::ErrorKind::PermissionDenied.into() };
        assert_eq!(error.lines(), ["unable to create tuntap device file: permission denied"]);
    }
}
