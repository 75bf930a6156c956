//! Durations as Go prints them (`10m0s`, `1.5s`, `350ms`): log lines that other software matches contain them. Pure.
//!
//! Follows Go's `time.Duration.String`. The parsing side lives with the settings.

use std::fmt::Write as _;
use std::time::Duration;

/// Renders `duration` as Go's `time.Duration.String` does.
///
/// ```
/// use std::time::Duration;
/// use tailpod::goduration::format;
/// assert_eq!(format(Duration::from_secs(600)), "10m0s");
/// assert_eq!(format(Duration::from_millis(1500)), "1.5s");
/// ```
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Renders `duration` rounded to whole seconds, halves up, as `Duration.Round(time.Second)` does.
pub fn format_seconds(duration: Duration) -> String {
    let up = u64::from(duration.subsec_millis() >= 500);
    format(Duration::from_secs(duration.as_secs().saturating_add(up)))
}

/// `value / unit` with as many decimals as it needs; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let mut text = (value / unit).to_string();
    let fraction = value % unit;
    if fraction != 0 {
        let width = unit.ilog10() as usize;
        // Writing to a `String` cannot fail.
        let _ = write!(text, ".{fraction:0width$}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (300_000_000_000, "5m0s"),
            (305_000_000_000, "5m5s"),
            (305_001_000_000, "5m5.001s"),
            (18_305_001_000_000, "5h5m5.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn rounds_halves_up() {
        for (millis, text) in [(0, "0s"), (499, "0s"), (500, "1s"), (61_499, "1m1s"), (599_999, "10m0s")] {
            assert_eq!(format_seconds(Duration::from_millis(millis)), text);
        }
    }
}
