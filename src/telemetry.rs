//! The log: one line per event on stderr, each in a single write.
//!
//! Three formats. As boot, upstream's: `boot: 2026/11/21 09:06:05 Starting tailscaled`, in which the message is
//! contract (boot.md 10.1), so fields follow only when the event has some. For the other applets, what a person
//! would say: `warning: …`. For log collectors, one JSON object per line. Lines of several tasks never mix, because
//! nothing is written in parts.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::escape::escape;

/// Targets of our own events; everything else is a dependency's.
const OURS: &str = env!("CARGO_PKG_NAME");

/// How an event becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `boot: YYYY/MM/DD HH:MM:SS <message>`, local time.
    Boot,
    /// `<message>`, labelled when it is not just information.
    Plain,
    /// One JSON object: `time` (RFC 3339, UTC), `level`, `message`, then the event's fields.
    Json,
    /// The same under zap's names, `level`, `ts`, `msg`: what upstream's `k8s-proxy` writes.
    Zap,
}

/// Installs the process's log. Later calls, and calls in a process that has one, change nothing.
///
/// `timezone` is the value of `TZ`, if set.
pub fn init(format: Format, level: LevelFilter, timezone: Option<&OsStr>) {
    let zone = match format {
        Format::Boot => local_zone(timezone),
        Format::Plain | Format::Json | Format::Zap => TimeZone::UTC,
    };
    let write: fn(&str) = |line| {
        // There is nowhere left to say that stderr is gone. Standard error is unbuffered: one write(2) per line.
        let _ = std::io::stderr().write_all(line.as_bytes());
    };
    LEVEL.set(level);
    let lines = Lines { format, level: Box::new(|| LEVEL.get()), zone, write };
    // Fails only when a log is installed already, which is then the caller's choice.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// Changes how much the process's log says: for a level that only a config names.
pub fn set_level(level: LevelFilter) {
    LEVEL.set(level);
    // Call sites remember whether anybody listens to them.
    tracing::callsite::rebuild_interest_cache();
}

/// The level of the process's log.
static LEVEL: SharedLevel = SharedLevel(AtomicU8::new(0));

/// A level that can change.
struct SharedLevel(AtomicU8);

impl SharedLevel {
    /// By number.
    const LEVELS: [LevelFilter; 6] = [
        LevelFilter::OFF,
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];

    fn set(&self, level: LevelFilter) {
        let number = Self::LEVELS.iter().position(|known| *known == level).unwrap_or_default();
        self.0.store(u8::try_from(number).unwrap_or_default(), Ordering::Relaxed);
    }

    fn get(&self) -> LevelFilter {
        Self::LEVELS.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or(LevelFilter::INFO)
    }
}

/// Writes one line of a child's standard error to ours, as it is: it has its own form, and no reader can tell that it
/// came through us. Nobody reading us is not the child's problem.
pub fn pass_on(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The level for `-v` and `-q` counted together: `-v` debug, `-vv` everything, `-q` warnings, `-qq` errors.
pub fn level(verbosity: i16) -> LevelFilter {
    match verbosity {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    }
}

/// A layer that turns events into lines.
struct Lines<W> {
    format: Format,
    level: Box<dyn Fn() -> LevelFilter + Send + Sync>,
    zone: TimeZone,
    write: W,
}

// === impl Lines ===

impl<W> Lines<W> {
    /// Ours at the level asked for, others' only from warnings up: their `info` is our `trace`.
    fn level_of(&self, target: &str) -> LevelFilter {
        let ours = target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let level = (self.level)();
        if ours || level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) }
    }

    fn line(&self, level: Level, now: Timestamp, event: Recorded) -> String {
        match self.format {
            Format::Boot => {
                let time = now.to_zoned(self.zone.clone());
                let time = time.strftime("%Y/%m/%d %H:%M:%S");
                format!("boot: {time} {}\n", escape(&event.text()))
            }
            Format::Plain => format!("{}{}\n", label(level), escape(&event.text())),
            Format::Json => event.json(&format!("\"time\":\"{now:.3}\",\"level\""), level, "message"),
            Format::Zap => event.json(&format!("\"ts\":\"{now:.0}\",\"level\""), level, "msg"),
        }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // `tracing::enabled!` asks with a callsite that is neither.
        !metadata.is_span() && *metadata.level() <= self.level_of(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some((self.level)())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut recorded = Recorded::default();
        event.record(&mut recorded);
        (self.write)(&self.line(*event.metadata().level(), Timestamp::now(), recorded));
    }
}

fn label(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        Level::INFO => "",
        Level::DEBUG => "debug: ",
        Level::TRACE => "trace: ",
    }
}

/// An event's message and fields.
#[derive(Default)]
struct Recorded {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Recorded {
    /// The message, then ` name=value` for each field.
    fn text(self) -> String {
        let mut text = self.message;
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(plain) if plain.chars().all(|char| !char.is_whitespace() && char != '"') => {
                    Cow::Borrowed(plain.as_str())
                }
                other => Cow::Owned(other.to_string()),
            };
            // Writing to a string cannot fail.
            let _ = write!(text, " {name}={value}");
        }
        text
    }

    /// One object: `head` up to the level, then the message under its name, then the fields.
    fn json(self, head: &str, level: Level, message: &str) -> String {
        let level = level.as_str().to_ascii_lowercase();
        let mut line = format!("{{{head}:\"{level}\",\"{message}\":{}", Value::String(self.message));
        for (name, value) in self.fields {
            // Writing to a string cannot fail.
            let _ = write!(line, ",{}:{value}", Value::from(name));
        }
        line.push_str("}\n");
        line
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), value.into()));
    }
}

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a string cannot fail.
            let _ = write!(chain, ": {cause}");
            source = cause.source();
        }
        self.put(field, chain);
    }
}

/// The local time zone by Go's rules: `TZ` unset means /etc/localtime, empty means UTC, else a file below the zone
/// directories or an absolute path; whatever cannot be read is UTC.
///
/// One small file is read at most. A search of the whole zone directory, which time libraries like to do, would be a
/// noticeable part of boot's start.
fn local_zone(timezone: Option<&OsStr>) -> TimeZone {
    let Some(name) = timezone else {
        return zone_file(Path::new("/etc/localtime")).unwrap_or(TimeZone::UTC);
    };
    let name = name.to_string_lossy();
    let name = name.strip_prefix(':').unwrap_or(&name);
    if name.is_empty() || name == "UTC" || name.split('/').any(|part| part == "..") {
        return TimeZone::UTC;
    }
    // An absolute path replaces the directory it is joined to.
    let directories = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"];
    let mut files = directories.iter().map(|directory| PathBuf::from(directory).join(name));
    files.find_map(|path| zone_file(&path)).unwrap_or(TimeZone::UTC)
}

fn zone_file(path: &Path) -> Option<TimeZone> {
    TimeZone::tzif("local", &std::fs::read(path).ok()?).ok()
}

/// For tests of what other modules log.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::lock::lock;

    /// The lines logged so far by one thread.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<String>>>);

    impl Captured {
        /// Takes what was logged since the last call.
        pub(crate) fn take(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    /// Captures this thread's log in [`Format::Plain`], without line feeds, until the guard is dropped.
    pub(crate) fn captured() -> (Captured, tracing::subscriber::DefaultGuard) {
        captured_as(Format::Plain, LevelFilter::TRACE)
    }

    pub(super) fn captured_as(format: Format, level: LevelFilter) -> (Captured, tracing::subscriber::DefaultGuard) {
        let captured = Captured::default();
        let sink = captured.clone();
        let write = move |line: &str| {
            let line = line.strip_suffix('\n').expect("a line ends with a line feed");
            lock(&sink.0).push(line.to_owned());
        };
        let lines = Lines { format, level: Box::new(move || level), zone: TimeZone::UTC, write };
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
        (captured, guard)
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, trace, warn};

    use super::testing::captured_as;
    use super::*;

    #[test]
    fn boot_lines_are_the_contract() {
        let (lines, _guard) = captured_as(Format::Boot, LevelFilter::INFO);
        info!("Starting tailscaled");
        warn!("two\nlines");
        let lines = lines.take();
        let (prefix, rest) = lines[0].split_at("boot: 2026/11/21 09:06:05".len());
        let shape: String = prefix.chars().map(|char| if char.is_ascii_digit() { '9' } else { char }).collect();
        assert_eq!((shape.as_str(), rest), ("boot: 9999/99/99 99:99:99", " Starting tailscaled"));
        assert!(lines[1].ends_with(" two\nlines"));
    }

    #[test]
    fn fields_follow_the_message_only_when_there_are_some() {
        let (lines, _guard) = captured_as(Format::Plain, LevelFilter::INFO);
        info!("plain");
        info!(secret = "tailscale", attempt = 2, delay = ?std::time::Duration::from_secs(1), "retrying");
        warn!(reason = "no such host", "spaced");
        error!("bad");
        assert_eq!(
            lines.take(),
            [
                "plain",
                "retrying secret=tailscale attempt=2 delay=1s",
                "warning: spaced reason=\"no such host\"",
                "error: bad"
            ]
        );
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        let (lines, _guard) = captured_as(Format::Boot, LevelFilter::INFO);
        info!("peer \x1b[2J{}", "x\u{202e}y");
        assert!(lines.take()[0].ends_with(" peer \\u{1b}[2Jx\\u{202e}y"));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let (lines, _guard) = captured_as(Format::Json, LevelFilter::INFO);
        info!(attempt = 1_u64, ok = true, "two\nlines");
        let lines = lines.take();
        assert_eq!(lines[0].lines().count(), 1);
        let mut object: Value = serde_json::from_str(&lines[0]).unwrap();
        let time = object.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().parse::<Timestamp>().is_ok(), "{time}");
        let expected = serde_json::json!({"level": "info", "message": "two\nlines", "attempt": 1, "ok": true});
        assert_eq!(object, expected);
    }

    #[test]
    fn zaps_names_are_upstreams() {
        let (lines, _guard) = captured_as(Format::Zap, LevelFilter::INFO);
        info!("Setting healthy true");
        let object: Value = serde_json::from_str(&lines.take()[0]).unwrap();
        assert_eq!((&object["level"], &object["msg"]), (&"info".into(), &"Setting healthy true".into()));
        assert!(object["ts"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(object.as_object().unwrap().len(), 3);
    }

    #[test]
    fn a_level_that_is_set_is_the_one_that_is_read() {
        let shared = SharedLevel(AtomicU8::new(0));
        for level in SharedLevel::LEVELS {
            shared.set(level);
            assert_eq!(shared.get(), level);
        }
    }

    #[test]
    fn an_errors_causes_are_logged_with_it() {
        let (lines, _guard) = captured_as(Format::Plain, LevelFilter::INFO);
        let error = anyhow::anyhow!("refused").context("cannot connect");
        let error: &dyn std::error::Error = error.as_ref();
        info!(error, "retrying");
        assert_eq!(lines.take(), ["retrying error=\"cannot connect: refused\""]);
    }

    #[test]
    fn levels_apply_to_us_and_mute_others() {
        let (lines, _guard) = captured_as(Format::Plain, LevelFilter::DEBUG);
        debug!("ours");
        trace!("too fine");
        info!(target: "hyper::client", "chatter");
        info!(target: "tailpodder", "not ours");
        warn!(target: "hyper::client", "trouble");
        assert_eq!(lines.take(), ["debug: ours", "warning: trouble"]);
    }

    #[test]
    fn who_asks_whether_a_line_would_be_written_hears_the_truth() {
        let (_lines, _guard) = captured_as(Format::Plain, LevelFilter::DEBUG);
        assert!(tracing::enabled!(Level::DEBUG) && !tracing::enabled!(Level::TRACE));
    }

    #[test]
    fn verbosity_counts() {
        let levels = [-9, -2, -1, 0, 1, 2, 9].map(level);
        let expected = [
            LevelFilter::ERROR,
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
            LevelFilter::TRACE,
        ];
        assert_eq!(levels, expected);
    }

    #[test]
    fn zones_follow_gos_rules() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("Test");
        // Version 1 TZif: no transitions, one type of +1 h called CET.
        let mut bytes = b"TZif".to_vec();
        bytes.extend([0; 16]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(3600_i32.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(b"CET\0");
        std::fs::write(&file, bytes).unwrap();
        let offset = |tz: &str| local_zone(Some(OsStr::new(tz))).to_offset(Timestamp::UNIX_EPOCH).seconds();
        assert_eq!(offset(file.to_str().unwrap()), 3600);
        assert_eq!(offset(&format!(":{}", file.display())), 3600);
        for utc in ["", "UTC", "No/Such_Zone", "../../etc/localtime"] {
            assert_eq!(offset(utc), 0, "{utc:?}");
        }
    }
}
