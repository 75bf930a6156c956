//! A result as table, JSON or YAML.

use anyhow::anyhow;
use serde::Serialize;
use serde_json::Value;

use super::Common;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::manifests::yaml::{self, Yaml};

/// How a result looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// The same as YAML; what is not known is left out
    Yaml,
}

impl Format {
    /// What the flags ask for.
    ///
    /// # Errors
    /// Exit code 2 when they contradict each other.
    pub(super) fn of(common: &Common, out: &Output) -> anyhow::Result<Self> {
        match (common.output, out.is_json()) {
            (None | Some(Self::Json), true) | (Some(Self::Json), false) => Ok(Self::Json),
            (Some(format), false) => Ok(format),
            (None, false) => Ok(Self::Table),
            (Some(_), true) => {
                Err(anyhow!("`--json` and `--output` ask for different things").exit_with(ExitStatus::Usage))
            }
        }
    }

    /// Writes the document; false when a table is wanted.
    pub(super) fn write(self, document: &impl Serialize, out: &Output) -> anyhow::Result<bool> {
        match self {
            Self::Table => return Ok(false),
            Self::Json => out.json(document)?,
            Self::Yaml => out.data(yaml::document(&yaml_of(serde_json::to_value(document)?)))?,
        }
        Ok(true)
    }
}

fn yaml_of(value: Value) -> Yaml {
    match value {
        // Only as an item of a list; members without a value are left out.
        Value::Null => "".into(),
        Value::Bool(value) => value.into(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.to_string().into(), Yaml::Number),
        Value::String(text) => text.into(),
        Value::Array(items) => Yaml::List(items.into_iter().map(yaml_of).collect()),
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            Yaml::Map(members.map(|(name, value)| (name, yaml_of(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_has_what_json_has_but_nothing_for_nothing() {
        let value = json!({"a": [{"b": "x:y", "c": null, "d": -1}], "e": [], "f": true});
        assert_eq!(yaml::document(&yaml_of(value)), "a:\n  - b: \"x:y\"\n    d: -1\ne: []\nf: true\n");
    }
}
