//! The loops in numbers, in Prometheus' text format. Pure.

use std::fmt::Write as _;

use super::names::Name;
use super::standing::Standing;

/// The text for a scrape.
pub fn text(standings: &[(Name, Standing)], is_writer: bool) -> String {
    let mut text = String::new();
    family(&mut text, "tailpod_cert_loops", "gauge", "Names whose certificates are kept fresh.", |add| {
        add("", &standings.len().to_string());
    });
    family(&mut text, "tailpod_cert_is_writer", "gauge", "Whether this replica asks for certificates.", |add| {
        add("", if is_writer { "1" } else { "0" });
    });
    family(&mut text, "tailpod_cert_not_after_seconds", "gauge", "When the certificate ends, Unix time.", |add| {
        for (name, standing) in standings {
            if let Some(certificate) = &standing.certificate {
                add(&format!("{{domain=\"{name}\"}}"), &certificate.period.not_after.as_second().to_string());
            }
        }
    });
    family(&mut text, "tailpod_cert_next_attempt_seconds", "gauge", "When it is asked for again, Unix time.", |add| {
        for (name, standing) in standings {
            if let Some(at) = standing.record.next_attempt {
                add(&format!("{{domain=\"{name}\"}}"), &at.as_second().to_string());
            }
        }
    });
    family(&mut text, "tailpod_cert_failures", "gauge", "Failed attempts in a row.", |add| {
        for (name, standing) in standings {
            add(&format!("{{domain=\"{name}\"}}"), &standing.record.failures.to_string());
        }
    });
    family(&mut text, "tailpod_cert_attempts_total", "counter", "Attempts by how they ended.", |add| {
        for (name, standing) in standings {
            for (result, count) in standing.results.iter() {
                add(&format!("{{domain=\"{name}\",result=\"{}\"}}", result.as_str()), &count.to_string());
            }
        }
    });
    text
}

/// How many Services wait for a certificate before they are advertised.
pub fn held_back(count: usize) -> String {
    let mut text = String::new();
    family(&mut text, "tailpod_services_held_back", "gauge", "Services that wait for a certificate.", |add| {
        add("", &count.to_string());
    });
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, fill: impl FnOnce(&mut dyn FnMut(&str, &str))) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    fill(&mut |labels, value| {
        let _ = writeln!(text, "{name}{labels} {value}");
    });
}

#[cfg(test)]
mod tests {
    use super::super::failure::Class;
    use super::super::record::Record;
    use super::super::standing::AttemptResult;
    use super::*;

    #[test]
    fn every_name_has_its_numbers() {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let record = Record::failed(3, at, Class::RateLimited, "slow down");
        let mut standing = Standing { record, ..Standing::default() };
        for result in
            [Class::RateLimited.into(), AttemptResult::OK, Class::RateLimited.into(), Class::RateLimited.into()]
        {
            standing.results.add(result);
        }
        let text = text(&[(Name::parse("a.b").unwrap(), standing)], true);
        for line in [
            "tailpod_cert_loops 1",
            "tailpod_cert_is_writer 1",
            "tailpod_cert_next_attempt_seconds{domain=\"a.b\"} 1767225600",
            "tailpod_cert_failures{domain=\"a.b\"} 3",
            "tailpod_cert_attempts_total{domain=\"a.b\",result=\"ok\"} 1",
            "tailpod_cert_attempts_total{domain=\"a.b\",result=\"rate_limited\"} 3",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
        assert!(!text.contains("tailpod_cert_not_after_seconds{"), "there is no certificate");
    }
}
