//! What a person in the pretend Pod may wish of the pretend control server.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::daemon::{CliScript, Daemon};
use super::tailnet::{KeyOptions, Tailnet};

/// The variable that tells programs in the Pod where the sandbox listens for wishes.
pub const LINK_VARIABLE: &str = "TAILPOD_SANDBOX";

/// What is understood, one wish a line.
const USAGE: &str = "  key [reusable] [expired] [tag:NAME…]   make an auth key and print it
  revoke KEY                             revoke an auth key
  expire-key KEY                         let an auth key expire
  devices                                list devices and peers
  expire DEVICE                          end a device's node key now
  delete DEVICE                          delete a device or peer
  approve DEVICE                         let a waiting device in
  approval on|off                        whether new devices wait for approval
  peer NAME                              add a peer
  service LABEL…                         approve Services, with their certificates
  certificate DAYS NAME…                 let tailscaled have certificates of that age
  visit URL                              log a node in at its login URL
";

/// Fulfils a wish; yields what to print and how to end.
pub(crate) fn fulfil(daemon: &Daemon, words: &[String]) -> CliScript {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let known = match words.as_slice() {
        ["key", options @ ..] => Ok(daemon.tailnet(|tailnet| key(tailnet, options))),
        ["revoke", key] => found(daemon.tailnet(|tailnet| tailnet.revoke(key)), "key", "revoked"),
        ["expire-key", key] => found(daemon.tailnet(|tailnet| tailnet.expire(key)), "key", "expired"),
        ["devices"] => Ok(devices(daemon)),
        ["expire", name] => {
            found(daemon.tailnet(|tailnet| tailnet.expire_device(name, Timestamp::now())), "device", "expired")
        }
        ["delete", name] => found(daemon.tailnet(|tailnet| tailnet.delete(name)), "device", "deleted"),
        ["approve", name] => found(daemon.tailnet(|tailnet| tailnet.approve(name)), "device", "approved"),
        ["approval", word @ ("on" | "off")] => {
            daemon.tailnet(|tailnet| tailnet.require_approval(*word == "on"));
            Ok(String::new())
        }
        ["peer", name] => Ok(daemon.tailnet(|tailnet| tailnet.add_peer(name)).name + "\n"),
        ["service", labels @ ..] if !labels.is_empty() => {
            Ok(daemon.tailnet(|tailnet| labels.iter().map(|label| tailnet.approve_service(label) + "\n").collect()))
        }
        ["certificate", days, names @ ..] if !names.is_empty() => certificates(daemon, days, names),
        ["visit", url] => found(daemon.tailnet(|tailnet| tailnet.visit(url)), "login URL", "visited"),
        _ => {
            let stderr = format!("error: not something the pretend control server does; it knows\n{USAGE}");
            return CliScript { stderr, exit: 2, ..CliScript::default() };
        }
    };
    match known {
        Ok(stdout) => CliScript { stdout, ..CliScript::default() },
        Err(error) => CliScript { stderr: format!("error: {error}\n"), exit: 1, ..CliScript::default() },
    }
}

fn key(tailnet: &mut Tailnet, options: &[&str]) -> String {
    let key = tailnet.issue(KeyOptions {
        reusable: options.contains(&"reusable"),
        expired: options.contains(&"expired"),
        tags: options.iter().filter(|option| option.starts_with("tag:")).map(|&tag| tag.to_owned()).collect(),
    });
    format!("{}\n", key.expose())
}

/// As if tailscaled had got them by itself, that long ago.
fn certificates(daemon: &Daemon, days: &str, names: &[&str]) -> Result<String, String> {
    let age = days.parse::<u16>().map_err(|error| format!("`{days}` is no number of days: {error}"))?;
    let begin = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(age));
    for name in names {
        daemon.put_certificate(name, begin)?;
    }
    Ok(String::new())
}

fn devices(daemon: &Daemon) -> String {
    let inner = daemon.lock();
    let mut text = String::new();
    for device in inner.tailnet.devices() {
        let address = device.addresses.first().and_then(|prefix| prefix.split('/').next()).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {address}  {}", device.stable_id, device.name);
    }
    text
}

fn found(found: bool, what: &str, done: &str) -> Result<String, String> {
    if found { Ok(format!("{done}\n")) } else { Err(format!("there is no such {what}")) }
}

#[cfg(test)]
mod tests {
    use super::super::tailnet::{Answer, Registration, Standing};
    use super::*;

    fn wish(daemon: &Daemon, words: &str) -> CliScript {
        fulfil(daemon, &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn wishes_come_true_or_say_why_not() {
        let daemon = Daemon::alone();
        let key = wish(&daemon, "key reusable tag:web").stdout;
        assert!(key.starts_with("tskey-auth-k"));
        assert_eq!(wish(&daemon, &format!("revoke {}", key.trim())).stdout, "revoked\n");
        assert_eq!(wish(&daemon, "peer db").stdout, "db.sandbox.ts.net.\n");
        assert!(wish(&daemon, "devices").stdout.ends_with("  db.sandbox.ts.net.\n"));
        assert_eq!(wish(&daemon, "service web shop").stdout, "web.sandbox.ts.net\nshop.sandbox.ts.net\n");
        assert_eq!(wish(&daemon, "certificate 70 web.sandbox.ts.net").exit, 0);
        assert_eq!(wish(&daemon, "certificate old web.sandbox.ts.net").exit, 1);
        assert_eq!(wish(&daemon, "delete db").exit, 0);
        let again = wish(&daemon, "delete db");
        assert_eq!((again.exit, again.stderr.as_str()), (1, "error: there is no such device\n"));
        let nonsense = wish(&daemon, "make tea");
        assert_eq!(nonsense.exit, 2);
        assert!(nonsense.stderr.contains("expire DEVICE"));
    }

    #[test]
    fn wishes_about_keys_and_logins_reach_the_control_server() {
        let daemon = Daemon::alone();
        let now = Timestamp::now();
        let register = |machine: &str, auth_key: Option<&str>| {
            let asked = Registration {
                machine_key: machine,
                node_key: machine,
                hostname: machine,
                auth_key,
                tags: &[],
                visited: None,
            };
            daemon.tailnet(|tailnet| tailnet.register(&asked, now))
        };
        let standing = |node_key: &str| daemon.tailnet(|tailnet| tailnet.standing(node_key, Timestamp::now()));
        let done = |words: &str| {
            let script = wish(&daemon, words);
            assert_eq!((script.exit, script.stderr.as_str()), (0, ""), "{words}");
            script.stdout
        };
        let key = done("key reusable").trim().to_owned();

        assert_eq!(done("approval on"), "");
        register("waits", Some(&key)).expect("a device");
        assert!(matches!(standing("waits"), Standing::Pending(_)));
        assert_eq!(done("approve waits"), "approved\n");
        assert!(matches!(standing("waits"), Standing::Good(_)));
        assert_eq!(done("approval off"), "");
        register("enters", Some(&key)).expect("a device");
        assert!(matches!(standing("enters"), Standing::Good(_)));

        assert_eq!(done("expire enters"), "expired\n");
        assert!(matches!(standing("enters"), Standing::Expired(_)));
        assert_eq!(done(&format!("expire-key {key}")), "expired\n");
        assert!(register("late", Some(&key)).is_err_and(|error| error.contains("has expired")));

        let Ok(Answer::Visit(url)) = register("human", None) else { panic!("no URL") };
        assert_eq!(done(&format!("visit {url}")), "visited\n");
        assert!(daemon.tailnet(|tailnet| tailnet.was_visited(&url)));

        for (words, what) in [
            ("expire-key k", "key"),
            ("revoke k", "key"),
            ("expire nobody", "device"),
            ("approve nobody", "device"),
            ("visit https://elsewhere/", "login URL"),
        ] {
            let script = wish(&daemon, words);
            let said = format!("error: there is no such {what}\n");
            assert_eq!((script.exit, script.stdout.as_str(), script.stderr), (1, "", said), "{words}");
        }
        assert_eq!(wish(&daemon, "approval perhaps").exit, 2);
    }
}
