//! The last words for `kubectl describe`: Kubernetes' termination message.
//!
//! The kubelet puts a file into the container and shows its text as the reason why the container ended. It is
//! written, never created: outside Kubernetes there is no such file and nobody reads it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Kubernetes' default `terminationMessagePath`.
pub const DEFAULT_PATH: &str = "/dev/termination-log";

/// What the kubelet reads of one container's message, in bytes.
const LONGEST: usize = 4096;

/// Replaces the file's text with `message`, in one line. `Ok(false)` when there is no such file.
///
/// Best effort: the process is about to end, so the caller logs an error and goes on.
pub fn write(path: &Path, message: &str) -> io::Result<bool> {
    // Opening a pipe that nobody reads would block otherwise.
    let mut open = OpenOptions::new();
    open.write(true).truncate(true).custom_flags(OFlag::O_NONBLOCK.bits());
    match open.open(path) {
        Ok(mut file) => file.write_all(one_line(message).as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The message's lines joined, without control characters, cut to what is read.
fn one_line(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut text: String = lines.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while text.len() > LONGEST {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_existing_file_gets_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        assert!(!write(&path, "lost").unwrap());
        assert!(!path.exists());
        fs::write(&path, "an older and longer message").unwrap();
        assert!(write(&path, "tailscaled died:\n\tsignal: killed\n\nhint: raise the limit\u{1b}[0m\n").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "tailscaled died:; signal: killed; hint: raise the limit [0m");
    }

    #[test]
    fn no_more_is_written_than_is_read() {
        let text = one_line(&"é".repeat(3000));
        assert_eq!(text.len(), 4096);
        let text = one_line(&format!("x{}", "é".repeat(3000)));
        assert_eq!(text.len(), 4095);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        assert!(write(Path::new("/"), "x").is_err());
    }
}
