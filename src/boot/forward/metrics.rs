//! What our own metrics say of packet rules. Pure.

use std::fmt::Write as _;

use crate::netfilter::keeper::Standing;
use crate::netfilter::ruleset::Table;

type Count = fn(&Standing) -> u64;

/// The counters of these tables.
pub(super) fn text(tables: &[(Table, Standing)]) -> String {
    let mut text = String::new();
    let counters: [(&str, &str, Count); 3] = [
        ("applications", "Transactions that brought a table to what it shall hold.", |now| now.applications),
        ("refusals", "Transactions that the kernel refused.", |now| now.refusals),
        ("repairs", "Times that a table was found changed by others.", |now| now.repairs),
    ];
    for (name, help, count) in counters {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP tailpod_netfilter_{name}_total {help}");
        let _ = writeln!(text, "# TYPE tailpod_netfilter_{name}_total counter");
        for (table, standing) in tables {
            let _ = writeln!(text, "tailpod_netfilter_{name}_total{{table=\"{table}\"}} {}", count(standing));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_line_for_each_table() {
        let standing = Standing { applications: 3, refusals: 1, ..Standing::default() };
        let text = text(&[(Table::L3, standing), (Table::Egress, Standing::default())]);
        for line in [
            "# TYPE tailpod_netfilter_applications_total counter",
            "tailpod_netfilter_applications_total{table=\"tailpod_l3\"} 3",
            "tailpod_netfilter_refusals_total{table=\"tailpod_l3\"} 1",
            "tailpod_netfilter_repairs_total{table=\"tailpod_egress\"} 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
    }
}
