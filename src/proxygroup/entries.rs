//! A config file as both kinds of groups have it: Services by name. Pure.
//!
//! A file that is not JSON is refused as a whole; what is wrong in one Service is left out and told, so that one odd
//! Service does not take the others along (ha-services.md 8.6).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::plan::{Invalid, Kind};

/// Every Service that can be served, and what cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<S> {
    /// By the name that the operator gave them.
    pub services: BTreeMap<String, S>,
    /// What is left out and why.
    pub problems: Vec<String>,
}

/// A Service as one kind of group has it.
pub trait Entry: Sized {
    /// Which kind.
    const KIND: Kind;

    /// Reads one; what of it is left out goes to `problems`.
    ///
    /// # Errors
    /// What is wrong with it as a whole.
    fn read(name: &str, entry: &Value, problems: &mut Vec<String>) -> Result<Self, String>;
}

impl<S> Default for Config<S> {
    fn default() -> Self {
        Self { services: BTreeMap::new(), problems: Vec::new() }
    }
}

impl<S: Entry> Config<S> {
    /// Reads the file; an empty one is no config.
    ///
    /// # Errors
    /// It is not a JSON object.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, Invalid> {
        if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(text)?)) }
    }
}

impl<'de, S: Entry> Deserialize<'de> for Config<S> {
    /// One Service after the other: a file of thousands is never in memory as a whole tree.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Services(PhantomData))
    }
}

struct Services<S>(PhantomData<S>);

impl<'de, S: Entry> Visitor<'de> for Services<S> {
    type Value = Config<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of Services")
    }

    /// `null` is what Go makes of a map that was never made.
    fn visit_unit<E>(self) -> Result<Config<S>, E> {
        Ok(Config::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Config<S>, A::Error> {
        let mut config = Config::default();
        while let Some((name, entry)) = entries.next_entry::<String, Value>()? {
            match S::read(&name, &entry, &mut config.problems) {
                Ok(service) => {
                    config.services.insert(name, service);
                }
                Err(problem) => {
                    config.problems.push(format!("{} service {name:?} is left out: {problem}", S::KIND.as_str()));
                }
            }
        }
        Ok(config)
    }
}
