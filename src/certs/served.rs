//! What of a serve config its names come from, and nothing else of it. Pure.
//!
//! A thousand Services are a few hundred kilobytes of text and some megabytes as a tree, of which most is what they
//! serve. Read as Go reads: members of any case, where the exact spelling wins, and what is of another type is nothing.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A serve config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// By `svc:…`.
    pub services: Vec<(String, Entry)>,
    /// What the node itself serves.
    pub own: Entry,
    /// The same for as long as somebody holds it in the foreground.
    pub foreground: Vec<Entry>,
}

/// What one Service or the node itself serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Keys of `Web`.
    pub web: Vec<String>,
    /// By port, as far as TLS ends there.
    pub terminates: Vec<(String, Handler)>,
}

/// Where TLS ends before something is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// For which name.
    pub name: String,
    /// Whether it says where to.
    pub forwards: bool,
}

/// Something of a config, read as Go does.
trait Part: Default {
    /// A member, with its value yet to be read from `map`.
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, is: &mut Spelling) -> Result<(), A::Error>;
}

/// Which members were spelled exactly.
#[derive(Default)]
struct Spelling(Vec<&'static str>);

impl Spelling {
    /// The one of `known` that `name` means, unless it was there in its exact spelling.
    fn of(&mut self, name: &str, known: &[&'static str]) -> Option<&'static str> {
        let meant = known.iter().copied().find(|known| known.eq_ignore_ascii_case(name))?;
        if self.0.contains(&meant) {
            return None;
        }
        if meant == name {
            self.0.push(meant);
        }
        Some(meant)
    }
}

/// Reads a part from an object, and nothing from anything else.
struct Leniently<T>(T);

struct Reader<T>(PhantomData<T>);

impl<'de, T: Part> Deserialize<'de> for Leniently<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Self)
    }
}

impl<'de, T: Part> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut part, mut spelling) = (T::default(), Spelling::default());
        while let Some(name) = map.next_key::<String>()? {
            part.member(&name, &mut map, &mut spelling)?;
        }
        Ok(part)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

/// A text, or nothing.
#[derive(Default, serde::Deserialize)]
#[serde(untagged)]
enum Text {
    Is(String),
    Other(IgnoredAny),
    #[default]
    #[serde(skip)]
    None,
}

impl Text {
    fn or_nothing(self) -> String {
        match self {
            Self::Is(text) => text,
            Self::Other(_) | Self::None => String::new(),
        }
    }
}

#[derive(Default)]
struct Services(Vec<(String, Entry)>);

#[derive(Default)]
struct Keys(Vec<String>);

#[derive(Default)]
struct Ports(Vec<(String, Handler)>);

impl Part for Served {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, is: &mut Spelling) -> Result<(), A::Error> {
        match is.of(name, &["Services", "Foreground", "Web", "TCP"]) {
            Some("Services") => self.services = map.next_value::<Leniently<Services>>()?.0.0,
            Some("Foreground") => {
                let sessions = map.next_value::<Leniently<Services>>()?.0.0;
                self.foreground = sessions.into_iter().map(|(_, entry)| entry).collect();
            }
            Some(own) => self.own.read(own, map)?,
            None => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl Entry {
    fn read<'de, A: MapAccess<'de>>(&mut self, member: &str, map: &mut A) -> Result<(), A::Error> {
        match member {
            "Web" => self.web = map.next_value::<Leniently<Keys>>()?.0.0,
            _ => self.terminates = map.next_value::<Leniently<Ports>>()?.0.0,
        }
        Ok(())
    }
}

impl Part for Entry {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, is: &mut Spelling) -> Result<(), A::Error> {
        match is.of(name, &["Web", "TCP"]) {
            Some(member) => self.read(member, map),
            None => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl Part for Services {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, _: &mut Spelling) -> Result<(), A::Error> {
        self.0.push((name.to_owned(), map.next_value::<Leniently<Entry>>()?.0));
        Ok(())
    }
}

impl Part for Keys {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, _: &mut Spelling) -> Result<(), A::Error> {
        self.0.push(name.to_owned());
        map.next_value::<IgnoredAny>().map(drop)
    }
}

impl Part for Ports {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, _: &mut Spelling) -> Result<(), A::Error> {
        let handler = map.next_value::<Leniently<Handler>>()?.0;
        if !handler.name.is_empty() {
            self.0.push((name.to_owned(), handler));
        }
        Ok(())
    }
}

impl Part for Handler {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A, is: &mut Spelling) -> Result<(), A::Error> {
        match is.of(name, &["TerminateTLS", "TCPForward"]) {
            Some("TerminateTLS") => self.name = map.next_value::<Text>()?.or_nothing(),
            Some(_) => self.forwards = !map.next_value::<Text>()?.or_nothing().is_empty(),
            None => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Served {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Leniently::deserialize(deserializer).map(|Leniently(served)| served)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_of_another_type_is_nothing() {
        for nothing in [json!(null), json!([{"Services": 1}]), json!("x"), json!(7), json!(-7), json!(0.5), json!(true)]
        {
            assert_eq!(serde_json::from_value::<Served>(nothing.clone()).unwrap(), Served::default(), "{nothing}");
            let config = json!({"Services": nothing, "Web": nothing, "TCP": {"443": nothing}, "Foreground": nothing});
            assert_eq!(serde_json::from_str::<Served>(&config.to_string()).unwrap(), Served::default(), "{config}");
        }
        let config = json!({"TCP": {"1": {"TerminateTLS": 7}, "2": {"TerminateTLS": "a.b", "TCPForward": null}}});
        let handler = Handler { name: "a.b".to_owned(), forwards: false };
        let own = Entry { terminates: vec![("2".to_owned(), handler)], ..Entry::default() };
        assert_eq!(serde_json::from_value::<Served>(config).unwrap(), Served { own, ..Served::default() });
    }

    #[test]
    fn the_exact_spelling_wins_wherever_it_stands() {
        for text in [r#"{"web": {"a:1": 0}, "Web": {"b:1": 0}}"#, r#"{"Web": {"b:1": 0}, "web": {"a:1": 0}}"#] {
            assert_eq!(serde_json::from_str::<Served>(text).unwrap().own.web, ["b:1"], "{text}");
        }
        let text = r#"{"services": {"svc:a": {"WEB": {"a:443": {"Handlers": {"/": {"Text": "x"}}}}}}}"#;
        let served = serde_json::from_str::<Served>(text).unwrap();
        assert_eq!(
            (served.services[0].0.as_str(), &served.services[0].1.web[..]),
            ("svc:a", &["a:443".to_owned()][..])
        );
    }
}
