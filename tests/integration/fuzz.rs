//! The fuzz targets of tests/fuzz, on their corpus and on what a seeded mutator makes of it.
//!
//! libFuzzer finds more and needs more (`.ci/run fuzz`); this runs wherever the tests run, and runs the same.

#[expect(unreachable_pub, reason = "the fuzz package has them as its library")]
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::panic;
use std::path::{Path, PathBuf};

/// For each target. In a debug build about a second's worth.
const MUTANTS: usize = 6_000;

/// What the bytes of these formats are made of.
const WORDS: &[&[u8]] = &[
    b"/",
    b"//",
    b"%2F",
    b"%2f",
    b"%",
    b"..",
    b"/./",
    b"exec",
    b"pods",
    b"api",
    b"proxy",
    b"watch",
    b"namespaces",
    b"?",
    b"#",
    b";",
    b"&watch=1",
    b"\r\n",
    b"\n",
    b"\r",
    b": ",
    b":",
    b" ",
    b"\t",
    b"\0",
    b",",
    b"Connection: ",
    b"Upgrade: ",
    b"Impersonate-User: root",
    b"impersonate_group: x",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.1 200 OK\r\n",
    b"\x21\x11\0\x0c",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\xff\xff",
    b"\xc3\xbc",
    b"\"",
    b"[",
    b"]",
    b"{",
    b"}",
    b"null",
    b"impersonate",
    b"groups",
    b"enforceRecorder",
    b"true",
];

#[test]
fn the_corpus_holds() {
    for (name, target) in targets::ALL {
        let corpus = corpus(name);
        assert!(corpus.len() >= 5, "{name} has no corpus");
        for (path, bytes) in corpus {
            hold(target, &bytes, &path.display().to_string());
        }
    }
}

#[test]
fn mutants_of_the_corpus_hold() {
    for (name, target) in targets::ALL {
        let corpus: Vec<_> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for number in 0..MUTANTS {
            let mut bytes = random.of(&corpus).clone();
            for _ in 0..=random.below(4) {
                mutate(&mut bytes, &mut random, &corpus);
            }
            bytes.truncate(2_048);
            hold(target, &bytes, &format!("mutant {number} of {name}"));
        }
    }
}

/// A driver that calls nothing would pass: a target must be able to fail.
#[test]
fn a_finding_is_reported() {
    let found = panic::catch_unwind(|| hold(|bytes| assert!(bytes.is_empty()), b"x", "it"));
    let message = found.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("it: [120]"), "{message}");
}

fn hold(target: fn(&[u8]), bytes: &[u8], what: &str) {
    let held = panic::catch_unwind(|| target(bytes));
    assert!(held.is_ok(), "{what}: {bytes:?}");
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// One change, as libFuzzer makes them.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random, corpus: &[Vec<u8>]) {
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.byte(),
        2 => bytes.insert(at, random.byte()),
        3 => {
            let end = (at + random.below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            // Something of another, from here to there.
            let other = random.of(corpus);
            let from = random.below(other.len() + 1);
            let upto = (from + random.below(24)).min(other.len());
            bytes.splice(at..at, other[from..upto].iter().copied());
        }
        5 => {
            let end = (at + random.below(16)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
    }
}

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
