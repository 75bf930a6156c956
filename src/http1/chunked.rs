//! Chunked bodies, taken apart as they arrive. Pure.

use bytes::Bytes;
use hyper::header::HeaderMap;

use super::head::{self, BadHead};

/// Longest line of a chunk's size with its extensions.
const LONGEST_EXTENSION: usize = 4 << 10;
/// Most bytes of trailers.
const LARGEST_TRAILERS: usize = 64 << 10;
/// Digits that no chunk's size exceeds.
const MOST_DIGITS: u8 = 15;

/// What happens with chunk extensions: nobody uses them but to confuse two parsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extensions {
    /// An error.
    Refuse,
    /// Read over.
    Ignore,
}

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not a chunk's size.
    #[error("malformed chunk size")]
    Size,
    /// An extension where none is allowed, or a long one.
    #[error("chunk extension")]
    Extension,
    /// A chunk or its size does not end in CR LF.
    #[error("a chunk does not end in CR LF")]
    LineEnd,
    /// Trailers of more bytes than anybody sends.
    #[error("trailers too large")]
    TrailersTooLarge,
    /// Trailers that are not header fields.
    #[error("malformed trailers")]
    Trailers(#[source] BadHead),
}

/// A chunked body as far as it has been read.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    extensions: Extensions,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataEnd,
    /// So many bytes into a line.
    Trailer {
        line: usize,
    },
    Done,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Data of the body: after so many bytes of framing, so many bytes.
    Data {
        /// Bytes to pass over.
        skip: usize,
        /// Bytes of the body.
        length: usize,
    },
    /// Everything was framing, and more is needed.
    More,
    /// The body ended after so many bytes.
    End {
        /// Bytes to pass over.
        skip: usize,
        /// Trailer fields, mostly none.
        trailers: HeaderMap,
    },
}

impl Chunks {
    /// A body of which nothing has been read.
    pub fn new(extensions: Extensions) -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extensions, trailers: Vec::new() }
    }

    /// Looks at the bytes after those of the last step. Each step takes what it says, [`Step::More`] all of them.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        while at < bytes.len() || matches!(self.state, State::Done) {
            let byte = bytes.get(at).copied().unwrap_or_default();
            self.state = match self.state {
                State::Size { size, digits } => match char::from(byte).to_digit(16) {
                    Some(_) if digits == MOST_DIGITS => return Err(ChunkError::Size),
                    Some(digit) => State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 },
                    None if digits == 0 => return Err(ChunkError::Size),
                    None => match byte {
                        b'\r' => State::SizeEnd { size },
                        b';' | b' ' | b'\t' if self.extensions == Extensions::Ignore => {
                            State::Extension { size, length: 0 }
                        }
                        b';' | b' ' | b'\t' => return Err(ChunkError::Extension),
                        _ => return Err(ChunkError::Size),
                    },
                },
                State::Extension { length: LONGEST_EXTENSION, .. } => return Err(ChunkError::Extension),
                State::Extension { size, length } => match byte {
                    b'\r' => State::SizeEnd { size },
                    b'\t' | 0x20..=0x7e => State::Extension { size, length: length + 1 },
                    _ => return Err(ChunkError::Extension),
                },
                State::SizeEnd { size } => match (byte, size) {
                    (b'\n', 0) => State::Trailer { line: 0 },
                    (b'\n', left) => State::Data { left },
                    _ => return Err(ChunkError::LineEnd),
                },
                State::Data { left } => {
                    let here = bytes.len() - at;
                    let length = usize::try_from(left).map_or(here, |left| left.min(here));
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                    return Ok(Step::Data { skip: at, length });
                }
                State::DataReturn if byte == b'\r' => State::DataEnd,
                State::DataEnd if byte == b'\n' => State::Size { size: 0, digits: 0 },
                State::DataReturn | State::DataEnd => return Err(ChunkError::LineEnd),
                State::Trailer { line } => self.trailer(byte, line)?,
                State::Done => {
                    let trailers = self.take_trailers()?;
                    return Ok(Step::End { skip: at, trailers });
                }
            };
            at += 1;
        }
        Ok(Step::More)
    }

    /// One byte of the trailers, so many bytes into its line.
    fn trailer(&mut self, byte: u8, line: usize) -> Result<State, ChunkError> {
        if self.trailers.len() == LARGEST_TRAILERS {
            return Err(ChunkError::TrailersTooLarge);
        }
        let after_return = self.trailers.last() == Some(&b'\r') && line > 0;
        self.trailers.push(byte);
        Ok(match (byte, line) {
            (b'\n', _) if !after_return => return Err(ChunkError::LineEnd),
            (b'\n', 1) => State::Done,
            (b'\n', _) => State::Trailer { line: 0 },
            _ if after_return => return Err(ChunkError::LineEnd),
            _ => State::Trailer { line: line + 1 },
        })
    }

    fn take_trailers(&mut self) -> Result<HeaderMap, ChunkError> {
        let lines = Bytes::from(std::mem::take(&mut self.trailers));
        // The empty line alone is how every body without trailers ends.
        if lines.len() <= 2 {
            return Ok(HeaderMap::new());
        }
        head::fields(&lines, 0).map_err(ChunkError::Trailers)
    }
}
