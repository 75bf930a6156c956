//! Lines out of what a child writes, as the bytes come. Pure.

/// How long a line may get before it is handed out in parts.
const LONGEST: usize = 16 * 1024;

/// Cuts a stream of bytes into lines. Empty ones are left out.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes more bytes, and hands out the lines that they complete, each without its end.
    pub fn push(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || self.0.len() == LONGEST {
                self.finish(on_line);
            }
            if byte != b'\n' {
                self.0.push(byte);
            }
        }
    }

    /// Hands out what has no end yet.
    pub fn finish(&mut self, on_line: &mut impl FnMut(&str)) {
        if !self.0.is_empty() {
            on_line(String::from_utf8_lossy(&self.0).trim_end_matches('\r'));
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_what_is_too_long_in_parts() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let mut note = |line: &str| seen.push(line.len());
        for piece in [&b"on"[..], b"e\r\n\ntw", &[b'x'; LONGEST], b"\nend"] {
            lines.push(piece, &mut note);
        }
        lines.finish(&mut note);
        assert_eq!(seen, [3, LONGEST, 2, 3]);
    }
}
