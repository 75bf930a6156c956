//! Credentials: which of them may stand together. Pure.
//!
//! The environment and the flags of `TS_EXTRA_ARGS` can both name credentials; the rules are the same (boot.md 2.5,
//! rows 11 to 16).

use super::{Credentials, Login};
use crate::secret::Secret;

/// Credentials as given, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginParts {
    /// `TS_AUTHKEY`, `--auth-key`
    pub auth_key: Option<Secret<String>>,
    /// `TS_CLIENT_ID`, `--client-id`
    pub client_id: Option<String>,
    /// `TS_CLIENT_SECRET`, `--client-secret`
    pub client_secret: Option<Secret<String>>,
    /// `TS_ID_TOKEN`, `--id-token`
    pub id_token: Option<Secret<String>>,
    /// `TS_AUDIENCE`, `--audience`
    pub audience: Option<String>,
}

impl LoginParts {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// What may not stand together, in upstream's order and words. Empty when all is well.
    pub fn conflicts(&self) -> Vec<&'static str> {
        let id = self.client_id.is_some();
        let secret = self.client_secret.is_some();
        let token = self.id_token.is_some();
        let audience = self.audience.is_some();
        [
            (token && !id, "TS_ID_TOKEN is set but TS_CLIENT_ID is not set"),
            (audience && !id, "TS_AUDIENCE is set but TS_CLIENT_ID is not set"),
            (token && secret, "TS_ID_TOKEN and TS_CLIENT_SECRET cannot both be set"),
            (token && audience, "TS_ID_TOKEN and TS_AUDIENCE cannot both be set"),
            (audience && secret, "TS_AUDIENCE and TS_CLIENT_SECRET cannot both be set"),
            (
                self.auth_key.is_some() && (id || secret || token || audience),
                "TS_AUTHKEY cannot be used with TS_CLIENT_ID, TS_CLIENT_SECRET, TS_ID_TOKEN, or TS_AUDIENCE.",
            ),
        ]
        .into_iter()
        .filter_map(|(broken, text)| broken.then_some(text))
        .collect()
    }

    /// The one way to log in that these are.
    ///
    /// # Errors
    /// The [conflicts](Self::conflicts), when there are any.
    pub fn login(self) -> Result<Login, Vec<&'static str>> {
        let conflicts = self.conflicts();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        Ok(match self {
            Self { auth_key: Some(key), .. } => Login::AuthKey(key),
            Self { client_secret: Some(secret), client_id: id, .. } => {
                Login::Credentials(Credentials::OAuth { id, secret })
            }
            Self { client_id: Some(id), id_token: Some(token), .. } => {
                Login::Credentials(Credentials::IdToken { id, token })
            }
            Self { client_id: Some(id), audience: Some(audience), .. } => {
                Login::Credentials(Credentials::Audience { id, audience })
            }
            Self { client_id: Some(id), .. } => Login::Credentials(Credentials::Ambient { id }),
            Self { client_id: None, .. } => Login::Interactive,
        })
    }
}

impl Login {
    /// Whether only the CLI can turn this into a login (boot.md E.2): everything but a literal auth key.
    pub fn needs_cli(&self) -> bool {
        match self {
            Self::Interactive => false,
            Self::AuthKey(key) => key_needs_cli(key.expose()),
            Self::Credentials(_) => true,
        }
    }
}

/// Whether an auth key is one that only the CLI can resolve: an OAuth client secret or a parameter-store name.
pub fn key_needs_cli(key: &str) -> bool {
    key.starts_with("tskey-client-") || key.starts_with("arn:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cli_resolves_some_keys() {
        for (key, cli) in [
            ("tskey-auth-k-s", false),
            ("file:/key", false),
            ("tskey-client-k-s?ephemeral=true", true),
            ("arn:aws:ssm:x", true),
        ] {
            assert_eq!(Login::AuthKey(key.to_owned().into()).needs_cli(), cli, "{key}");
        }
        assert!(Login::Credentials(Credentials::Ambient { id: "i".into() }).needs_cli());
        assert!(!Login::Interactive.needs_cli());
    }
}
