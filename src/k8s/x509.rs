//! The validity period and the public key of a DER certificate. Pure.
//!
//! webpki tells neither without rules that some certificates cannot pass: one that is its own root, and one of version 1,
//! as `openssl x509 -req` makes it, which API servers take from clients. So these two facts are read here (RFC 5280,
//! 4.1). Everything else about certificates is left to rustls.

/// When a certificate is valid, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First valid second.
    pub not_before: i64,
    /// Last valid second.
    pub not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`
const VERSION: u8 = 0xa0;

/// Reads the validity period; `None` when the bytes are not a certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let (period, _) = period_and_rest(certificate)?;
    let (tag, not_before, rest) = element(period)?;
    let not_before = time(tag, not_before)?;
    let (tag, not_after, _) = element(rest)?;
    Some(Validity { not_before, not_after: time(tag, not_after)? })
}

/// The `SubjectPublicKeyInfo`, tag and length included; `None` when the bytes are not a certificate.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (_, subject) = period_and_rest(certificate)?;
    let (SEQUENCE, _, key) = element(subject)? else { return None };
    let (SEQUENCE, _, after) = element(key)? else { return None };
    key.strip_suffix(after)
}

/// The content of `validity`, and what follows it.
fn period_and_rest(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // serialNumber, signature, issuer
    for wanted in [INTEGER, SEQUENCE, SEQUENCE] {
        let (tag, _, after) = element(rest)?;
        if tag != wanted {
            return None;
        }
        rest = after;
    }
    let (SEQUENCE, period, rest) = element(rest)? else { return None };
    Some((period, rest))
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Four length bytes are 4 GiB: more than any certificate has.
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that DER allows in certificates.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |part: &[u8]| part.iter().fold(0_i16, |sum, digit| sum * 10 + i16::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let two = |at: usize| i8::try_from(number(&rest[at..at + 2])).ok();
    let moment = jiff::civil::DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    Some(jiff::tz::Offset::UTC.to_timestamp(moment).ok()?.as_second())
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::*;

    #[test]
    fn reads_both_time_forms_and_the_key_of_a_real_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = rcgen::date_time_ymd(2084, 1, 29);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(validity(&der), Some(Validity { not_before: 0, not_after: 3_599_942_400 }));
        assert_eq!(public_key(&der), Some(&*rcgen::PublicKeyData::subject_public_key_info(&key)));
        for cut in 0..der.len() {
            // Never a panic; and nothing out of what is not a whole certificate.
            assert_eq!((validity(&der[..cut]), public_key(&der[..cut])), (None, None), "cut at {cut}");
        }
    }

    /// A DER element.
    fn made(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], content].concat()
    }

    #[test]
    fn reads_a_certificate_of_version_1_too() {
        let key = rcgen::KeyPair::generate().unwrap();
        let der = rcgen::CertificateParams::new(vec!["me".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (_, certificate, _) = element(der.der()).unwrap();
        let (_, signed, signature) = element(certificate).unwrap();
        // Version 1 has neither the version nor the extensions behind the public key.
        let (VERSION, _, rest) = element(signed).unwrap() else { panic!("no version") };
        let public = public_key(der.der()).unwrap();
        let end = rest.windows(public.len()).position(|window| window == public).unwrap() + public.len();
        let old = made(SEQUENCE, &[made(SEQUENCE, &rest[..end]), signature.to_vec()].concat());
        assert!(validity(&old).is_some());
        assert_eq!((validity(&old), public_key(&old)), (validity(der.der()), Some(public)));
    }

    #[test]
    fn refuses_what_der_does_not_allow() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        for (tag, text) in [
            (UTC_TIME, &b"700101000000"[..]),
            (UTC_TIME, b"20500101000000Z"),
            (GENERALIZED_TIME, b"700101000000Z"),
            (UTC_TIME, b"701301000000Z"),
            (UTC_TIME, b"70x101000000Z"),
            (INTEGER, b"700101000000Z"),
        ] {
            assert_eq!(time(tag, text), None);
        }
    }
}
