//! Go's durations, read as `time.ParseDuration` does. Pure. Printing is [`crate::goduration`]'s.

use std::time::Duration;

/// A Go duration: nanoseconds, possibly negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// Nanoseconds.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }

    /// As the time until a deadline: negative ones have expired.
    pub fn deadline(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// Why a text is not a Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No digits, an overflow, or something else that is no duration at all.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit: `90`.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit other than `ns us µs ms s m h`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// A Go duration: an optional sign, then numbers with units (`1h30m`, `1.5h`, `-2s`), or a bare `0`.
pub fn duration(text: &str) -> Result<GoDuration, DurationError> {
    // As in Go, the sum may reach 2^63: `-2562047h47m16.854775808s` is the smallest duration.
    const LIMIT: u64 = 1 << 63;
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(GoDuration(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = take_digits(&mut rest);
        let whole = match digits {
            "" => 0,
            digits => digits.parse().ok().filter(|whole: &u64| *whole <= LIMIT).ok_or_else(invalid)?,
        };
        let fraction = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                take_digits(&mut rest)
            }
            None => "",
        };
        if digits.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(unit_end);
        rest = after;
        let scale: u64 = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        let part = whole.checked_mul(scale).and_then(|part| part.checked_add(fraction_of(fraction, scale)));
        total = part.and_then(|part| total.checked_add(part)).filter(|sum| *sum <= LIMIT).ok_or_else(invalid)?;
    }
    if negative {
        Ok(GoDuration(0_i64.checked_sub_unsigned(total).ok_or_else(invalid)?))
    } else {
        Ok(GoDuration(i64::try_from(total).map_err(|_| invalid())?))
    }
}

/// The digits at the front, taken off `rest`.
fn take_digits<'t>(rest: &mut &'t str) -> &'t str {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits
}

/// `0.<digits>` of a unit of `scale` nanoseconds, rounded down.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    // 15 digits of an hour are far below a nanosecond, and 10^15 hours in nanoseconds fit a u128.
    let digits = &digits[..digits.len().min(15)];
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let power = u32::try_from(digits.len()).map_or(1, |len| 10_u128.pow(len));
    u64::try_from(value * u128::from(scale) / power).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_gos() {
        const S: i64 = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("60s", 60 * S),
            ("1h2m3s", 3723 * S),
            ("1.5h", 5400 * S),
            (".5s", S / 2),
            ("1.s", S),
            ("-2s", -2 * S),
            ("+5s", 5 * S),
            ("1us", 1000),
            ("1µs", 1000),
            ("1μs", 1000),
            ("3ms2ns", 3_000_002),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("0.100000000000000000000h", 360 * S),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(duration(text).map(GoDuration::nanoseconds), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why_as_go_does() {
        for (text, reason) in [
            ("", r#"time: invalid duration """#),
            ("90", r#"time: missing unit in duration "90""#),
            ("1h90", r#"time: missing unit in duration "1h90""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1 s", r#"time: unknown unit " s" in duration "1 s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("-", r#"time: invalid duration "-""#),
            ("soon", r#"time: invalid duration "soon""#),
            ("--1s", r#"time: invalid duration "--1s""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("9223372036854775809", r#"time: invalid duration "9223372036854775809""#),
            ("99999999999999999999s", r#"time: invalid duration "99999999999999999999s""#),
        ] {
            assert_eq!(duration(text).expect_err(text).to_string(), reason);
        }
    }

    #[test]
    fn expired_deadlines_are_zero() {
        assert_eq!(duration("-5s").map(GoDuration::deadline), Ok(Duration::ZERO));
        assert_eq!(duration("1m").map(GoDuration::deadline), Ok(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_an_error(text in "[-+]?[0-9.a-zµ ]{0,24}") {
            let _ = duration(&text);
        }

        #[test]
        fn printed_durations_are_read_back(nanos in 0..=i64::MAX) {
            let printed = crate::goduration::format(GoDuration(nanos).deadline());
            // Go divides fractions in floating point; ours are exact to 15 digits, so the value comes back.
            prop_assert_eq!(duration(&printed), Ok(GoDuration(nanos)), "{}", printed);
        }

        #[test]
        fn a_sum_of_parts_is_the_duration(h in 0..2_000_i64, m in 0..1_000_i64, s in 0..1_000_i64, ms in 0..1_000_i64) {
            let nanos = ((h * 3600 + m * 60 + s) * 1000 + ms) * 1_000_000;
            prop_assert_eq!(duration(&format!("{h}h{m}m{s}s{ms}ms")), Ok(GoDuration(nanos)));
            prop_assert_eq!(duration(&format!("-{h}h{m}m{s}s{ms}ms")), Ok(GoDuration(-nanos)));
        }
    }
}
