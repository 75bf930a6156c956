//! What a DER certificate says of itself: validity, serial number, issuer, names, public key. Pure.
//!
//! webpki shows nothing of what it has read, and tells validity and key only along with rules that some certificates
//! cannot pass: one that is its own root, and one of version 1, as `openssl x509 -req` makes it, which API servers take
//! from clients. So these few facts are read here (RFC 5280, 4.1). Whether a certificate is to be trusted is left to
//! rustls.

use std::fmt::Write as _;
use std::net::IpAddr;

/// When a certificate is valid, in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First valid second.
    pub not_before: i64,
    /// Last valid second.
    pub not_after: i64,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Serial number in lower-case hex without leading zeros.
    pub serial: String,
    /// The issuer's common name, or its organisation without one; empty without both.
    pub issuer: String,
    /// When it is valid.
    pub validity: Validity,
    /// DNS names and addresses it is for, in its order.
    pub names: Vec<String>,
    /// The SubjectPublicKeyInfo as it stands in the certificate.
    pub public_key: Vec<u8>,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`
const VERSION: u8 = 0xa0;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[3] EXPLICIT Extensions`
const EXTENSIONS: u8 = 0xa3;
/// `dNSName [2]` of a GeneralName
const DNS_NAME: u8 = 0x82;
/// `iPAddress [7]` of a GeneralName
const IP_ADDRESS: u8 = 0x87;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// 2.5.4.10
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 29, 17];

/// Reads the validity period; `None` when the bytes are not a certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut fields = Fields::of(certificate)?;
    fields.skip(INTEGER)?;
    fields.skip(SEQUENCE)?; // signature
    fields.skip(SEQUENCE)?; // issuer
    fields.validity()
}

/// The `SubjectPublicKeyInfo`, tag and length included; `None` when the bytes are not a certificate.
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::of(certificate)?;
    fields.skip(INTEGER)?;
    for _ in ["signature", "issuer", "validity", "subject"] {
        fields.skip(SEQUENCE)?;
    }
    fields.whole(SEQUENCE)
}

/// Reads all of it; `None` when the bytes are not a certificate.
pub fn facts(certificate: &[u8]) -> Option<Facts> {
    let mut fields = Fields::of(certificate)?;
    let serial = fields.take(INTEGER)?;
    fields.skip(SEQUENCE)?; // signature
    let issuer = fields.take(SEQUENCE)?;
    let validity = fields.validity()?;
    fields.skip(SEQUENCE)?; // subject
    let public_key = fields.whole(SEQUENCE)?.to_vec();
    let names = fields.extensions().map(|extensions| alternative_names(extensions).unwrap_or_default());
    Some(Facts {
        serial: hex(serial),
        issuer: attribute(issuer, COMMON_NAME).or_else(|| attribute(issuer, ORGANIZATION)).unwrap_or_default(),
        validity,
        names: names.unwrap_or_default(),
        public_key,
    })
}

/// What is left of a TBSCertificate.
struct Fields<'d>(&'d [u8]);

impl<'d> Fields<'d> {
    /// From the serial number on.
    fn of(certificate: &'d [u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, rest, _) = element(certificate)? else { return None };
        match element(rest)? {
            (VERSION, _, after) => Some(Self(after)),
            _ => Some(Self(rest)),
        }
    }

    /// The content of the next element, which has this tag.
    fn take(&mut self, wanted: u8) -> Option<&'d [u8]> {
        let (tag, content, after) = element(self.0)?;
        self.0 = after;
        (tag == wanted).then_some(content)
    }

    /// The next element, which has this tag, with its head.
    fn whole(&mut self, wanted: u8) -> Option<&'d [u8]> {
        let before = self.0;
        self.take(wanted)?;
        Some(&before[..before.len() - self.0.len()])
    }

    fn skip(&mut self, wanted: u8) -> Option<()> {
        self.take(wanted).map(drop)
    }

    fn validity(&mut self) -> Option<Validity> {
        let period = self.take(SEQUENCE)?;
        let (tag, not_before, rest) = element(period)?;
        let not_before = time(tag, not_before)?;
        let (tag, not_after, _) = element(rest)?;
        Some(Validity { not_before, not_after: time(tag, not_after)? })
    }

    /// The extensions, behind the unique identifiers that nobody uses.
    fn extensions(mut self) -> Option<&'d [u8]> {
        while !self.0.is_empty() {
            let (tag, content, after) = element(self.0)?;
            self.0 = after;
            if tag == EXTENSIONS {
                let (SEQUENCE, extensions, _) = element(content)? else { return None };
                return Some(extensions);
            }
        }
        None
    }
}

/// The first attribute of this type in a Name.
fn attribute(mut name: &[u8], wanted: &[u8]) -> Option<String> {
    while !name.is_empty() {
        let (tag, mut set, after) = element(name)?;
        name = after;
        while tag == SET && !set.is_empty() {
            let (_, pair, others) = element(set)?;
            set = others;
            let (OBJECT_IDENTIFIER, kind, value) = element(pair)? else { continue };
            if kind == wanted {
                let (_, text, _) = element(value)?;
                return Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    None
}

/// The names of the subjectAltName extension.
fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    while !extensions.is_empty() {
        let (_, extension, after) = element(extensions)?;
        extensions = after;
        let (OBJECT_IDENTIFIER, kind, mut rest) = element(extension)? else { continue };
        if kind != SUBJECT_ALT_NAME {
            continue;
        }
        if let (BOOLEAN, _, value) = element(rest)? {
            rest = value;
        }
        let (OCTET_STRING, value, _) = element(rest)? else { return None };
        let (SEQUENCE, mut general, _) = element(value)? else { return None };
        let mut names = Vec::new();
        while !general.is_empty() {
            let (tag, name, others) = element(general)?;
            general = others;
            match tag {
                DNS_NAME => names.push(String::from_utf8_lossy(name).into_owned()),
                IP_ADDRESS => names.extend(address(name).map(|ip| ip.to_string())),
                _ => {}
            }
        }
        return Some(names);
    }
    Some(Vec::new())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().skip_while(|byte| **byte == 0).fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    if digits.is_empty() { "00".to_owned() } else { digits }
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
    fn the_facts_are_those_it_was_made_with() {
        let names = ["shop.tail1.ts.net", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x0a, 0xff]));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Let's Encrypt");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let read = facts(&der).unwrap();
        assert_eq!((read.serial.as_str(), read.issuer.as_str()), ("0aff", "Let's Encrypt"));
        assert_eq!(read.names, names);
        assert_eq!(read.public_key, rcgen::PublicKeyData::subject_public_key_info(&key));
        assert_eq!(Some(read.validity), validity(&der));
        params.distinguished_name.push(rcgen::DnType::CommonName, "R11");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(facts(&der).unwrap().issuer, "R11");
        for cut in 0..der.len() {
            assert_eq!(facts(&der[..cut]), None, "cut at {cut}");
        }
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
