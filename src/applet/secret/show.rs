//! What `tailpod secret` shows to people.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::output::{Ink, Output};
use crate::cli::table::{Column, Table};
use crate::escape::escape;
use crate::statesecret::findings::span;
use crate::statesecret::inspect::{Holder, Inspection, Life, age};
use crate::statesecret::proxied::Proxied;
use crate::statesecret::repair::{Action, Repair};
use crate::statesecret::{Finding, Glimpse, Severity};

/// Column of the values in the list at the top, as `kubectl describe` has one.
const INDENT: usize = 14;

/// The whole inspection: a list, the profiles, the keys.
pub(super) fn inspection(seen: &Inspection, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            // A value is one line, whatever is in it; writing to a String cannot fail.
            let value = value.replace('\n', "\\n").replace('\t', "\\t");
            let _ = writeln!(text, "{:INDENT$}{value}", format!("{label}:"));
        }
    };
    let ago = |time: &str| age(time, now).map_or(String::new(), |seconds| format!(" ({} ago)", span(seconds)));
    line("Secret", &format!("{}/{}", seen.namespace, seen.name));
    line("Version", seen.resource_version.as_deref().unwrap_or_default());
    line("Created", &seen.created.as_deref().map(|time| format!("{time}{}", ago(time))).unwrap_or_default());
    line("Belongs to", &seen.owners.join(", "));
    line("Size", &format!("{} keys, {} of {} bytes", seen.size.keys, seen.size.bytes, seen.size.limit));
    line("Device", &parts([seen.device.id.as_deref(), seen.device.fqdn.as_deref(), Some(&seen.device.ips.join(", "))]));
    line("Pod", &pod(&seen.pod));
    if let Some(users) = seen.users.as_deref() {
        let names: Vec<_> = users.iter().map(|user| format!("{} ({})", user.name, user.phase)).collect();
        line("Used by", if names.is_empty() { "no living Pod" } else { "" });
        line("Used by", &names.join(", "));
    }
    line("Capability", &capability(seen));
    line("Identity", &identity(seen));
    line("Auth key", seen.auth_key.as_deref().unwrap_or_default());
    if let Some(reissue) = &seen.reissue {
        let since = reissue.since.as_deref().map(ago).unwrap_or_default();
        line("Reissue", &format!("asked for in place of {}{since}", reissue.failed_key));
    }
    line("HTTPS", seen.https_endpoint.as_deref().unwrap_or_default());
    line("Egress", &seen.egress.as_ref().map(proxied).unwrap_or_default());
    line("Ingress", &seen.ingress.as_ref().map(proxied).unwrap_or_default());
    for table in [profiles(seen), keys(seen)].into_iter().flatten() {
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

fn profiles(seen: &Inspection) -> Option<Table> {
    let columns = ["profile", "login", "control server", "node", "key expiry", "state"].map(Column::Text);
    let mut table = Table::new(&columns);
    for profile in &seen.identity.profiles {
        let marks = [
            (profile.current, "current"),
            (!profile.stored, "not there"),
            (!profile.listed, "not listed"),
            (profile.attestation_key, "attestation key"),
        ];
        let marks: Vec<_> = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
        let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            profile.key.clone(),
            or_dash(&profile.login),
            or_dash(&profile.control_url),
            or_dash(&profile.node_id),
            profile.key_expiry.clone().unwrap_or_else(|| "unknown".to_owned()),
            marks.join(", "),
        ]);
    }
    (!table.is_empty()).then_some(table)
}

fn keys(seen: &Inspection) -> Option<Table> {
    use Column::{Number, Text};
    let columns = [Text("key"), Number("bytes"), Text("value"), Text("last writer"), Text("last write")];
    let mut table = Table::new(&columns);
    for key in &seen.keys {
        let writer = key.writer.as_ref();
        table.row([
            key.name.as_str(),
            &key.glimpse.bytes.to_string(),
            &key.glimpse.cell(),
            writer.map_or("-", |writer| &writer.manager),
            writer.and_then(|writer| writer.time.as_deref()).unwrap_or("-"),
        ]);
    }
    (!table.is_empty()).then_some(table)
}

/// The findings, each with its remedy.
pub(super) fn findings(findings: &[Finding], out: &Output) -> anyhow::Result<()> {
    if findings.is_empty() {
        return out.raw(&format!("\n{}\n", out.ink(Ink::Green, "nothing is wrong with it")));
    }
    let mut text = String::from("\n");
    for finding in findings {
        let (ink, severity) = match finding.severity {
            Severity::Error => (Ink::Red, "error:"),
            Severity::Warning => (Ink::Yellow, "warning:"),
        };
        let sentence = escape(&finding.sentence);
        let _ = writeln!(text, "{} {} {sentence}", out.ink(ink, severity), finding.code.as_str());
        let _ = writeln!(text, "  {} {}", out.ink(Ink::Cyan, "mend:"), escape(&finding.mend));
    }
    // Every part that comes from outside is escaped above; the colours are ours.
    out.raw(&text)
}

/// What each repair changes.
pub(super) fn repairs(repairs: &[Repair]) -> String {
    let columns = ["code", "action", "key", "to"].map(Column::Text);
    let mut table = Table::new(&columns);
    for repair in repairs {
        for change in &repair.changes {
            let action = match change.action {
                Action::Set => "set",
                Action::Delete => "delete",
            };
            let to = change.to.as_ref().map(Glimpse::phrase).unwrap_or_default();
            table.row([repair.code.as_str(), action, &change.key, &to]);
        }
    }
    table.render()
}

fn pod(pod: &Holder) -> String {
    let Some(uid) = &pod.uid else { return String::new() };
    let state = match pod.state {
        Life::Alive => "alive",
        Life::Terminating => "being stopped",
        Life::Gone => "gone",
        Life::Unknown => "alive or not, not known",
    };
    match &pod.name {
        Some(name) => format!("{name} ({uid}), {state}"),
        None => format!("{uid}, {state}"),
    }
}

fn capability(seen: &Inspection) -> String {
    let published = seen.capability.published.map(|version| version.to_string());
    let daemon = seen.capability.daemon_version.as_deref().map(|version| match seen.capability.daemon {
        Some(reads) => format!("tailscaled {version} reads up to {reads}"),
        None => format!("tailscaled {version}"),
    });
    parts([published.as_deref(), daemon.as_deref()])
}

fn identity(seen: &Inspection) -> String {
    let identity = &seen.identity;
    let machine = if identity.machine_key { "machine key" } else { "no machine key" };
    let profile = match &identity.current_profile {
        Some(name) => format!("current profile {name}"),
        None => "no current profile".to_owned(),
    };
    let complete = if identity.complete { "complete" } else { "not complete" };
    format!("{complete}: {machine}, {profile}")
}

fn proxied(status: &Proxied) -> String {
    let services = status.services.iter().map(|service| {
        let ports = if service.ports == 0 { String::new() } else { format!(" ({} ports)", service.ports) };
        let target = if service.target.is_empty() { "nowhere" } else { &service.target };
        format!("{} to {target}{ports}", service.name)
    });
    let services: Vec<_> = services.collect();
    let pod =
        if status.pod_ips.is_empty() { String::new() } else { format!(", for Pod {}", status.pod_ips.join(", ")) };
    match services.len() {
        0 => format!("no services{pod}"),
        1 => format!("1 service: {}{pod}", services[0]),
        count => format!("{count} services: {}{pod}", services.join(", ")),
    }
}

fn parts<'a>(parts: impl IntoIterator<Item = Option<&'a str>>) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}
