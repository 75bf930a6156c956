//! The pretend Pod: a directory that looks like a container's root, as far as our programs look.
//!
//! Holds the TUN device, the sysctl files, the service account, a `/tmp` for sockets, a `/bin` with the
//! stand-ins, and mounted config Secrets that are updated the way the kubelet does it. Removed on drop.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Longest root path that leaves every socket in it under the kernel's limit of 107 bytes.
const LONGEST_ROOT: usize = 64;

/// The service account's place in a Pod.
pub(crate) const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// Sysctl files that host preparation writes.
pub(crate) const SYSCTLS: [&str; 2] = ["proc/sys/net/ipv4/ip_forward", "proc/sys/net/ipv6/conf/all/forwarding"];

/// Names our binary answers to in a Pod.
pub(crate) const OUR_NAMES: [&str; 4] = ["tailpod", "containerboot", "run.sh", "k8s-proxy"];

/// A directory laid out as a Pod; removed on drop.
#[derive(Debug)]
pub struct Pod {
    root: PathBuf,
}

impl Pod {
    /// Makes the directories and files. `binary` is the tailpod binary that the stand-ins in `bin` run.
    pub(crate) fn create(binary: &Path) -> io::Result<Self> {
        let pod = Self { root: new_root()? };
        for dir in ["dev/net", "tmp", "bin", "opt", "etc", "run", SERVICE_ACCOUNT] {
            fs::create_dir_all(pod.root.join(dir))?;
        }
        fs::write(pod.root.join("dev/net/tun"), "")?;
        for sysctl in SYSCTLS {
            pod.write(sysctl, "0")?;
        }
        for name in ["tailscaled", "tailscale"] {
            let script = format!(
                "#!/bin/sh\nexec {} sandbox {name} --link={} --backend={} -- \"$@\"\n",
                quoted(binary),
                quoted(&pod.link()),
                quoted(&pod.backend()),
            );
            let path = pod.write(&format!("bin/{name}"), script)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        for name in OUR_NAMES {
            for dir in [pod.bin(), pod.links()] {
                symlink(binary, dir.join(name))?;
            }
        }
        Ok(pod)
    }

    /// The directory that stands for `/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `tailscaled` is told to listen: `<root>/tmp/tailscaled.sock`.
    pub fn socket(&self) -> PathBuf {
        self.root.join("tmp/tailscaled.sock")
    }

    /// The directory of the stand-ins, and of our own programs under all their names.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The directory of our own programs under all their names, without the stand-ins.
    pub fn links(&self) -> PathBuf {
        self.root.join("opt")
    }

    /// The service account's directory.
    pub fn service_account(&self) -> PathBuf {
        self.root.join(SERVICE_ACCOUNT)
    }

    /// Writes a file of the Pod, making its directories; yields its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Reads a file of the Pod as text, without surrounding white space.
    pub fn read(&self, name: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.root.join(name))?.trim().to_owned())
    }

    /// A config Secret or ConfigMap mounted at `name`, empty at first.
    pub fn volume(&self, name: &str) -> Volume {
        Volume { dir: self.root.join(name), version: AtomicU32::new(0) }
    }

    /// The sandbox's control socket.
    pub(crate) fn link(&self) -> PathBuf {
        self.root.join("run/link")
    }

    /// The sandbox's LocalAPI socket.
    pub fn backend(&self) -> PathBuf {
        self.root.join("run/api")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary directory and is named after us.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A mounted Secret, updated as the kubelet does: new files in a new directory, then one swap of `..data`.
#[derive(Debug)]
pub struct Volume {
    dir: PathBuf,
    version: AtomicU32,
}

impl Volume {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Replaces all files at once.
    pub fn set<C: AsRef<[u8]>>(&self, files: &[(&str, C)]) -> io::Result<()> {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let data = format!("..2026_01_01_00_00_00.{version}");
        fs::create_dir_all(self.dir.join(&data))?;
        for (name, content) in files {
            fs::write(self.dir.join(&data).join(name), content)?;
        }
        let old = fs::read_link(self.dir.join("..data")).ok();
        symlink(&data, self.dir.join("..data_tmp"))?;
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data"))?;
        for (name, _) in files {
            if fs::symlink_metadata(self.dir.join(name)).is_err() {
                symlink(Path::new("..data").join(name), self.dir.join(name))?;
            }
        }
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let kept = name.as_bytes().starts_with(b"..") || files.iter().any(|(file, _)| OsStr::new(file) == name);
            if !kept {
                fs::remove_file(self.dir.join(name))?;
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.join(old))?;
        }
        Ok(())
    }
}

/// A new directory of ours, short enough for sockets.
fn new_root() -> io::Result<PathBuf> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > LONGEST_ROOT - 20 { PathBuf::from("/tmp") } else { base };
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let root = base.join(format!("tp-{}-{serial}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&root) {
            Ok(()) => return root.canonicalize(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_what_boot_looks_for_and_leaves_nothing() {
        let pod = Pod::create(Path::new("/o'ur/tailpod")).expect("a pod");
        let root = pod.root().to_owned();
        for sysctl in SYSCTLS {
            assert_eq!(pod.read(sysctl).expect("a sysctl"), "0");
        }
        assert!(root.join("dev/net/tun").exists());
        assert!(pod.socket().as_os_str().len() < 100);
        assert!(pod.read("bin/tailscaled").expect("a script").contains(r"exec '/o'\''ur/tailpod' sandbox tailscaled"));
        drop(pod);
        assert!(!root.exists());
    }

    #[test]
    fn a_volume_is_swapped_whole() {
        let pod = Pod::create(Path::new("/tailpod")).expect("a pod");
        let volume = pod.volume("etc/tsconfig");
        volume.set(&[("a", "1"), ("b", "2")]).expect("the first files");
        let first = fs::read_link(volume.path().join("..data")).expect("a link");
        volume.set(&[("a", "3")]).expect("the next files");
        assert_eq!(pod.read("etc/tsconfig/a").expect("a file"), "3");
        assert_eq!(fs::read_link(volume.path().join("a")).expect("a link"), Path::new("..data/a"));
        assert!(fs::symlink_metadata(volume.path().join("b")).is_err());
        assert!(!volume.path().join(first).exists());
    }
}
