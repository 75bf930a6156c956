//! What a scrape is told of groups. Pure.

use std::fmt::Write as _;

use super::follow::Standing;
use super::plan::Kind;

/// One name with its values by kind of group.
type Metric = (&'static str, &'static str, fn(&Standing) -> Option<f64>);

/// Names are ours, so that nobody takes them for tailscaled's.
const METRICS: [Metric; 8] = [
    ("tailpod_group_services", "gauge", |standing| Some(count(standing.services as u64))),
    ("tailpod_group_services_unresolved", "gauge", |standing| Some(count(standing.unresolved as u64))),
    ("tailpod_group_rules", "gauge", |standing| Some(count(standing.mappings as u64))),
    ("tailpod_group_config_valid", "gauge", |standing| Some(flag(standing.config.is_none()))),
    ("tailpod_group_rules_in_force", "gauge", |standing| {
        Some(flag(standing.rules.is_none() && standing.applied.is_some()))
    }),
    ("tailpod_group_rules_applied_timestamp_seconds", "gauge", |standing| {
        #[expect(clippy::cast_precision_loss, reason = "seconds are exact for some million years")]
        standing.applied.map(|at| at.as_second() as f64)
    }),
    ("tailpod_group_rules_refused_total", "counter", |standing| Some(count(standing.refusals))),
    ("tailpod_group_rules_repaired_total", "counter", |standing| Some(count(standing.repairs))),
];

/// The exposition text; `draining` where there is a hook for it.
pub fn text(groups: &[(Kind, Standing)], draining: Option<bool>) -> String {
    let mut text = String::new();
    for (name, metric, value) in METRICS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} {metric}");
        for (kind, standing) in groups {
            if let Some(value) = value(standing) {
                let _ = writeln!(text, "{name}{{group=\"{}\"}} {value}", kind.as_str());
            }
        }
    }
    if let Some(draining) = draining {
        let _ = writeln!(text, "# TYPE tailpod_group_draining gauge\ntailpod_group_draining {}", flag(draining));
    }
    text
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

#[expect(clippy::cast_precision_loss, reason = "counts are exact up to 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_type_once_and_a_value_for_each_group() {
        let standing = Standing { services: 3, mappings: 7, config: Some("x".to_owned()), ..Standing::default() };
        let text = text(&[(Kind::Egress, standing.clone()), (Kind::Ingress, Standing::default())], Some(true));
        for line in [
            "tailpod_group_services{group=\"egress\"} 3",
            "tailpod_group_services{group=\"ingress\"} 0",
            "tailpod_group_rules{group=\"egress\"} 7",
            "tailpod_group_config_valid{group=\"egress\"} 0",
            "tailpod_group_config_valid{group=\"ingress\"} 1",
            "tailpod_group_draining 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert_eq!(text.lines().filter(|line| *line == "# TYPE tailpod_group_services gauge").count(), 1);
        assert!(!text.contains("timestamp_seconds{"), "not before there is one: {text}");
    }
}
